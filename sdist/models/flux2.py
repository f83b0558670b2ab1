"""FLUX.2 klein. Black Forest Labs 2026; the network as diffusers has it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, Real
from torch import Tensor

from ..diffusion import size_of
from ..prediction import Guidance, Text
from ..registry import FAMILIES
from .base import check_widths
from .flow import PatchedFlow
from .packing import PATCH
from .schedules import check_flow, exponential_shift
from .text import PromptEncoder, TemplateText

LAYERS = (9, 18, 27)  # of the language model, that are read
STEPS = 50  # for whose schedule levels are shifted: the pipeline shifts by their number, too


class Flux2Text(TemplateText):
    """Three layers of Qwen3 side by side; padding is read."""

    tokens: ClassVar[int] = 512

    def wrapped(self, prompt: str) -> str:
        return self.chat(prompt, enable_thinking=False)

    def embed(self, prompts: Sequence[str]) -> Text:
        layers, _ = self.hidden_states(prompts)
        return Text(torch.cat([layers[i] for i in LAYERS], -1).float())


@FAMILIES.register("flux2")
class Flux2(PatchedFlow):
    """A latent is what its autoencoder makes of 2 x 2 places, stacked and normalized by the autoencoder's own statistics."""

    components: ClassVar[Mapping[str, str]] = {
        "transformer": "Flux2Transformer2DModel",
        "vae": "AutoencoderKLFlux2",
        "text_encoder": "Qwen3ForCausalLM",
        "tokenizer": "Qwen2Tokenizer",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    }

    def make_text(self, parts: Mapping[str, Any], options: Mapping[str, Any]) -> PromptEncoder:
        return Flux2Text([parts["text_encoder"]], [parts["tokenizer"]])

    def check(self) -> None:
        check_flow(self.scheduler)
        config, width = self.denoiser.config, self.text.encoders[0].config.hidden_size
        widths = {
            "latent channels": (config.in_channels, self.channels),
            "text width": (config.joint_attention_dim, len(LAYERS) * width),
        }
        check_widths("FLUX.2 klein", "transformer", widths)

    @property
    def guidance(self) -> Guidance:
        return "embedded" if self.denoiser.config.guidance_embeds else "cfg"

    @property
    def factor(self) -> int:
        return super().factor * PATCH

    @property
    def multiple(self) -> int:
        return self.factor

    @property
    def channels(self) -> int:
        return super().channels * PATCH**2

    def from_vae(self, mean: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d y x"]:
        shift, scale = self._statistics()
        return (rearrange(mean, "b c (h y) (w x) -> b (c y x) h w", y=PATCH, x=PATCH) - shift) / scale

    def to_vae(self, latents: Float[Tensor, "b d y x"]) -> Float[Tensor, "b c h w"]:
        shift, scale = self._statistics()
        return rearrange(latents * scale + shift, "b (c y x) h w -> b c (h y) (w x)", y=PATCH, x=PATCH)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel."""
        norm = self.vae.bn
        deviation = (norm.running_var + self.vae.config.batch_norm_eps).sqrt()
        return norm.running_mean[:, None, None], deviation[:, None, None]

    def shift(self, size: tuple[int, int]) -> float:
        """As its pipeline shifts a schedule of STEPS levels for that many tokens: from fits at 10 and at 200 steps."""
        tokens = size[0] * size[1]
        few, many = 8.73809524e-05 * tokens + 1.89833333, 0.00016927 * tokens + 0.45666666
        mu = many if tokens > 4300 else few + (many - few) * (STEPS - 10) / 190
        return exponential_shift(self.scheduler, mu)

    def denoise(
        self, z_t: Float[Tensor, "n c h w"], t: Real[Tensor, " n"], text: Text, guidance: Float[Tensor, " n"] | None
    ) -> Float[Tensor, "n c h w"]:
        height, width = size_of(z_t)
        one, rows, columns, tokens = (torch.arange(n, device=z_t.device) for n in (1, height, width, text.tokens.shape[1]))
        velocity = self.forward(
            rearrange(z_t, "n c h w -> n (h w) c"), encoder_hidden_states=text.tokens, guidance=guidance,
            timestep=self.level(t, size_of(z_t)) / self.last_timestep,
            img_ids=torch.cartesian_prod(one, rows, columns, one), txt_ids=torch.cartesian_prod(one, one, one, tokens),
        )  # fmt: skip
        return rearrange(velocity, "n (h w) c -> n c h w", h=height)
