"""Stable Diffusion 3 and 3.5. Esser et al. 2024, arXiv 2403.03206."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, Real
from torch import Tensor, nn

from ..diffusion import size_of
from ..errors import UserError
from ..hooks.layers import AttentionLayout, Kind, Layer, Projected
from ..prediction import Text
from ..registry import FAMILIES
from .base import Backbone, check_widths
from .flow import Flow, JointLayout
from .schedules import FLOW, flow_shift
from .text import PromptEncoder, TextWithT5

T5_TOKENS = 256  # that the model reads of a prompt; zeros where there is no T5
# by number of blocks and whether some have a second attention (3.5 medium): the five whose maps segment best, "Exploring
# multimodal diffusion transformers", ICCV 2025, arXiv 2508.07519
MASKING_BLOCKS = {(24, False): (4, 5, 7, 8, 9), (24, True): (5, 7, 8, 9, 10), (38, False): (16, 18, 20, 21, 24)}


class StableDiffusion3Text(TextWithT5):
    """The second-last layers of two CLIP text encoders side by side, zero-padded to T5's width, then the tokens of T5.

    Pooled are the projections of both CLIPs. Without a T5 its tokens are zeros. Attention looks at CLIP's tokens and at T5's.
    """

    t5: ClassVar[int] = 2
    layer: ClassVar[int] = 2

    def __init__(self, encoders: Sequence[Any], tokenizers: Sequence[Any], width: int) -> None:
        super().__init__(encoders, tokenizers)
        self.width, self.t5_tokens = width, T5_TOKENS  # of a token, as the denoiser reads it; of a prompt

    @property
    def clips(self) -> Sequence[Any]:
        return self.encoders[:2]

    @property
    def length(self) -> int:
        return super().length + self.t5_tokens

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Text:
        seen = [e(self._ids(prompts, i), output_hidden_states=True) for i, e in enumerate(self.clips)]
        clip = torch.cat([one.hidden_states[-self.layer - self.skip].float() for one in seen], -1)
        rows = nn.functional.pad(clip, (0, self.width - clip.shape[-1]))
        t5 = (
            self.encoders[2](self._ids(prompts, 2))[0].float()
            if self.has_t5
            else rows.new_zeros(len(rows), self.t5_tokens, self.width)
        )
        return Text(torch.cat([rows, t5], 1), torch.cat([one.text_embeds.float() for one in seen], -1))

    @property
    def has_t5(self) -> bool:
        return len(self.encoders) == 3

    def token_spans(self, prompt: str) -> list[tuple[int, int]]:
        clip = super().token_spans(prompt)
        return clip + (self._spans(prompt, 2) if self.has_t5 else [(0, 0)] * self.t5_tokens)


@FAMILIES.register("stable_diffusion_3")
class StableDiffusion3(Flow, Backbone):
    """A transformer in which tokens of image and text attend jointly, trained as a rectified flow."""

    denoiser_name = "transformer"
    pipeline_name = "StableDiffusion3Pipeline"
    components: ClassVar[Mapping[str, str]] = {
        "transformer": "SD3Transformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModelWithProjection",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "text_encoder_3": "T5EncoderModel",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
        "tokenizer_3": "T5Tokenizer",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    }
    accepts: ClassVar[Mapping[str, tuple[str, ...]]] = {"scheduler": FLOW}
    optional: ClassVar[frozenset[str]] = frozenset({"text_encoder_3", "tokenizer_3"})

    def make_text(self, parts: Mapping[str, Any], options: Mapping[str, Any]) -> PromptEncoder:
        encoders, tokenizers = ([part for part in (parts.get(f"{name}{n}") for n in ("", "_2", "_3")) if part is not None]
                                for name in ("text_encoder", "tokenizer"))  # fmt: skip
        return StableDiffusion3Text(encoders, tokenizers, self.denoiser.config.joint_attention_dim)

    def check(self) -> None:
        self._level_shift = flow_shift(self.scheduler)
        config, clips = self.denoiser.config, [encoder.config for encoder in self.text.encoders[:2]]
        width, t5 = config.joint_attention_dim, self.text.encoders[2:]
        widths = {
            "latent channels": (config.in_channels, self.channels),
            "text width of CLIP": (width, max(width, sum(clip.hidden_size for clip in clips))),  # less is padded
            "text width of T5": (width, t5[0].config.d_model if t5 else width),
            "pooled text width": (config.pooled_projection_dim, sum(clip.projection_dim for clip in clips)),
        }
        check_widths("Stable Diffusion 3", "transformer", widths)

    @property
    def multiple(self) -> int:
        return self.factor * int(self.denoiser.config.patch_size)

    def check_size(self, width: int, height: int) -> None:
        """Positions are cut from the middle of a square table."""
        largest = int(self.denoiser.config.pos_embed_max_size) * self.multiple
        if max(width, height) > largest:
            raise UserError(f"the image would be {width} x {height}, this model reads at most {largest} x {largest}; give --size")

    def shift(self, size: tuple[int, int]) -> float:
        return self._level_shift

    def denoise(
        self, z_t: Float[Tensor, "n c h w"], t: Real[Tensor, " n"], text: Text, guidance: Float[Tensor, " n"] | None
    ) -> Float[Tensor, "n c h w"]:
        level = self.level(t, size_of(z_t))
        return self.forward(z_t, encoder_hidden_states=text.tokens, pooled_projections=text.pooled, timestep=level)

    @property
    def configuration(self) -> dict[str, Any]:
        return {**super().configuration, "shift": self._level_shift}

    @cached_property
    def layout(self) -> AttentionLayout:
        return StableDiffusion3Layout(self.denoiser)


class StableDiffusion3Layout(JointLayout):
    """Of an SD3Transformer2DModel."""

    def __init__(self, transformer: Any) -> None:
        config = transformer.config
        blocks = MASKING_BLOCKS.get((config["num_layers"], bool(config.get("dual_attention_layers"))))
        super().__init__(transformer, blocks, (config["patch_size"] - 1).bit_length())
        self._normed = config.get("qk_norm") is not None

    def reads(self, kind: Kind, layer: Layer) -> tuple[str, ...]:
        names = ("norm_q", "norm_k", "norm_added_k") if self._normed else ("to_q", "to_k", "add_k_proj")
        return tuple(f"{layer.name}.{name}" for name in names[: 3 if kind == "cross" else 2])

    def queries_and_keys(self, kind: Kind, layer: Layer, output: Callable[[str], Tensor]) -> tuple[Projected, Projected]:
        queries, keys, *text = (self._projected(output(name)) for name in self.reads(kind, layer))
        return queries, torch.cat([*text, keys], 1)

    def _projected(self, x: Tensor) -> Projected:
        """Norms see heads apart."""
        return rearrange(x, "n heads tokens d -> n tokens (heads d)") if self._normed else x
