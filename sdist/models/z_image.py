"""Z-Image. Tongyi-MAI 2025, arXiv 2511.22699; the network as diffusers has it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Real
from torch import Tensor

from ..diffusion import size_of
from ..prediction import Text
from ..registry import FAMILIES
from .base import check_widths
from .flow import PatchedFlow
from .schedules import check_flow
from .text import PromptEncoder, TemplateText


class ZImageText(TemplateText):
    """The second-last layer of Qwen3; padding is not read."""

    tokens: ClassVar[int] = 512

    def wrapped(self, prompt: str) -> str:
        return self.chat(prompt, enable_thinking=True)

    def embed(self, prompts: Sequence[str]) -> Text:
        layers, read = self.hidden_states(prompts)
        return Text(layers[-2].float(), mask=read)


@FAMILIES.register("z_image")
class ZImage(PatchedFlow):
    """A transformer that reads text and image as one sequence. It is told 1 - s, and says data - noise.

    Its pipeline counts guidance from 0: pos + g (pos - neg) is a scale of g + 1 here.
    """

    components: ClassVar[Mapping[str, str]] = {
        "transformer": "ZImageTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "Qwen3Model",
        "tokenizer": "Qwen2Tokenizer",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    }
    accepts: ClassVar[Mapping[str, Sequence[str]]] = {"text_encoder": ("Qwen3ForCausalLM",)}

    @classmethod
    def matches(cls, config: Mapping[str, Any]) -> bool:
        """Those of the omni variant read images, too."""
        return config.get("siglip_feat_dim") is None

    def make_text(self, parts: Mapping[str, Any], options: Mapping[str, Any]) -> PromptEncoder:
        return ZImageText([parts["text_encoder"]], [parts["tokenizer"]])

    def check(self) -> None:
        check_flow(self.scheduler)
        config, width = self.denoiser.config, self.text.encoders[0].config.hidden_size
        widths = {"latent channels": (config.in_channels, self.channels), "text width": (config.cap_feat_dim, width)}
        check_widths("Z-Image", "transformer", widths)

    def denoise(
        self, z_t: Float[Tensor, "n c h w"], t: Real[Tensor, " n"], text: Text, guidance: Float[Tensor, " n"] | None
    ) -> Float[Tensor, "n c h w"]:
        assert text.mask is not None
        prompts = [row[read] for row, read in zip(text.tokens, text.mask, strict=True)]
        cleanness = 1 - self.level(t, size_of(z_t)) / self.last_timestep
        return -torch.stack(self.forward(list(z_t[:, :, None]), cleanness, prompts))[:, :, 0]
