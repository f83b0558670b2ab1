"""FLUX.1, dev and schnell. Black Forest Labs 2024; the network as diffusers has it."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, Real
from torch import Tensor

from ..diffusion import size_of
from ..hooks.layers import AttentionLayout, Kind, Layer, Projected
from ..prediction import Guidance, Text
from ..registry import FAMILIES
from .base import check_widths
from .flow import JointLayout, PatchedFlow
from .packing import PATCH, pack, places, unpack
from .schedules import check_flow
from .text import PromptEncoder, TextWithT5

T5_TOKENS = 512  # that the model reads of a prompt
MASKING_BLOCKS = {19: (11, 12, 14, 17, 18)}  # by number of double blocks: whose maps segment best, arXiv 2508.07519


class FluxText(TextWithT5):
    """T5's tokens; pooled is the output of one CLIP at the end of the prompt, without a projection."""

    t5: ClassVar[int] = 0

    def __init__(self, t5: tuple[Any, Any], clip: tuple[Any, Any]) -> None:
        super().__init__(*zip(t5, clip, strict=True))
        self.t5_tokens = T5_TOKENS

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Text:
        tokens, pooled = (encoder(self._ids(prompts, i)) for i, encoder in enumerate(self.encoders))
        return Text(tokens[0].float(), pooled.pooler_output.float())


@FAMILIES.register("flux")
class Flux(PatchedFlow):
    """A transformer in which packed latents and tokens of text attend jointly, trained as a rectified flow.

    Its dev variant reads the guidance scale as an input. Levels are shifted as its scheduler shifts them: by the number of the
    image's tokens where that is dynamic, which schnell's is not.
    """

    pipeline_name = "FluxPipeline"
    components: ClassVar[Mapping[str, str]] = {
        "transformer": "FluxTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "T5Tokenizer",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    }

    def make_text(self, parts: Mapping[str, Any], options: Mapping[str, Any]) -> PromptEncoder:
        return FluxText((parts["text_encoder_2"], parts["tokenizer_2"]), (parts["text_encoder"], parts["tokenizer"]))

    def check(self) -> None:
        check_flow(self.scheduler)
        config, (t5, clip) = self.denoiser.config, self.text.encoders
        widths = {
            "latent channels": (config.in_channels, PATCH**2 * self.channels),
            "text width": (config.joint_attention_dim, t5.config.d_model),
            "pooled text width": (config.pooled_projection_dim, clip.config.hidden_size),
        }
        check_widths("FLUX.1", "transformer", widths)

    @property
    def guidance(self) -> Guidance:
        return "embedded" if self.denoiser.config.guidance_embeds else "cfg"

    def denoise(
        self, z_t: Float[Tensor, "n c h w"], t: Real[Tensor, " n"], text: Text, guidance: Float[Tensor, " n"] | None
    ) -> Float[Tensor, "n c h w"]:
        size, at = size_of(z_t), places(size_of(z_t), z_t)
        level = self.level(t, size) / self.last_timestep
        velocity = self.forward(
            pack(z_t), encoder_hidden_states=text.tokens, timestep=level, img_ids=at,
            txt_ids=at.new_zeros(text.tokens.shape[1], 3), **self.conditioning(text, guidance, len(at)),
        )  # fmt: skip
        return unpack(velocity, size)

    def conditioning(self, text: Text, guidance: Float[Tensor, " n"] | None, places: int) -> dict[str, Tensor | None]:
        """What the transformer reads beside tokens of text and `places` tokens of the image."""
        return {"pooled_projections": text.pooled, "guidance": guidance}

    @cached_property
    def layout(self) -> AttentionLayout:
        return FluxLayout(self.denoiser)


class FluxLayout(JointLayout):
    """Of a FluxTransformer2DModel: its double blocks."""

    def __init__(self, transformer: Any) -> None:
        super().__init__(transformer, MASKING_BLOCKS.get(transformer.config["num_layers"]), PATCH.bit_length() - 1)

    def reads(self, kind: Kind, layer: Layer) -> tuple[str, ...]:
        """Queries and keys behind their norms, text's keys where the block holds them apart, positions, the embedded text."""
        names = ("norm_q", "norm_k", *(() if is_single(layer) else ("norm_added_k",)))
        return (*(f"{layer.name}.{name}" for name in names), "pos_embed", "context_embedder")

    def queries_and_keys(self, kind: Kind, layer: Layer, output: Callable[[str], Any]) -> tuple[Projected, Projected]:
        queries, keys, *text_keys = (output(name) for name in self.reads(kind, layer)[:-2])
        turn, text = output("pos_embed"), output("context_embedder").shape[1]
        if is_single(layer):
            queries = queries[:, text:]
        keys = _turned(torch.cat([*text_keys, keys], 1), turn)
        rows = keys if kind == "cross" else keys[:, text:]
        queries = _turned(queries, tuple(part[text:] for part in turn))
        return rearrange(queries, "n l heads d -> n l (heads d)"), rearrange(rows, "n l heads d -> n l (heads d)")


def is_single(layer: Layer) -> bool:
    """Whether text and image are one sequence in its block."""
    return layer.name.startswith("single_")


def _turned(x: Float[Tensor, "n l heads d"], turn: tuple[Tensor, ...]) -> Float[Tensor, "n l heads d"]:
    """Rotary positions: pairs of neighbouring components rotated by the angles whose (cosines, sines), (l, d), are `turn`."""
    cosines, sines = (part[:, None] for part in turn)
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return (x * cosines + torch.stack([-odd, even], -1).flatten(-2) * sines).to(x.dtype)
