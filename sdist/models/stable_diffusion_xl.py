"""Stable Diffusion XL. Podell et al. 2023, arXiv 2307.01952."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Real
from torch import Tensor

from ..prediction import Text
from ..registry import FAMILIES
from .schedules import DISCRETE
from .stable_diffusion import StableDiffusion
from .text import ClipTexts, PromptEncoder


class TwoClipTexts(ClipTexts):
    """The second-last layers of two CLIP text encoders side by side, and the pooled embedding of the second's first block.

    `zero_empty` gives an empty prompt an embedding of zeros, with which the model was trained.
    """

    layer: ClassVar[int] = 2

    def __init__(self, encoders: Sequence[Any], tokenizers: Sequence[Any], zero_empty: bool) -> None:
        super().__init__(encoders, tokenizers)
        self.zero_empty = zero_empty

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Text:
        text = super().embed(prompts)
        empty = torch.tensor([self.zero_empty and not prompt for prompt in prompts], device=text.tokens.device)
        return text.map(lambda part: part.masked_fill(empty.view(-1, *[1] * (part.ndim - 1)), 0))

    def encode(self, prompts: Sequence[str]) -> Text:
        first, second = (self._seen(prompts, i) for i in range(2))
        tokens = torch.cat([seen.hidden_states[-self.layer - self.skip] for seen in (first, second)], -1)
        return Text(self._joined(tokens), second.text_embeds[:: self.blocks].float())


@FAMILIES.register("stable_diffusion_xl")
class StableDiffusionXL(StableDiffusion):
    """A UNet that also reads a pooled embedding of the prompt and the size of the image."""

    pipeline_name = "StableDiffusionXLPipeline"
    components: ClassVar[Mapping[str, str]] = {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
        "scheduler": "DDPMScheduler",
    }

    accepts: ClassVar[Mapping[str, tuple[str, ...]]] = {"scheduler": DISCRETE, "text_encoder": ("CLIPTextModelWithProjection",)}

    @classmethod
    def matches(cls, config: Mapping[str, Any]) -> bool:
        return config.get("addition_embed_type") == "text_time"

    def make_text(self, parts: Mapping[str, Any], options: Mapping[str, Any]) -> PromptEncoder:
        encoders, tokenizers = ([parts[name], parts[f"{name}_2"]] for name in ("text_encoder", "tokenizer"))
        self.zero_empty = bool(options.get("force_zeros_for_empty_prompt", True))
        return TwoClipTexts(encoders, tokenizers, self.zero_empty)

    @property
    def configuration(self) -> dict[str, Any]:
        return {**super().configuration, "force_zeros_for_empty_prompt": self.zero_empty}

    def widths(self) -> dict[str, tuple[int, int]]:
        config = self.denoiser.config
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        return super().widths() | {"pooled text width": (pooled, self.text.encoders[1].config.projection_dim)}

    def denoise(
        self, z_t: Float[Tensor, "n c h w"], t: Real[Tensor, " n"], text: Text, guidance: Float[Tensor, " n"] | None
    ) -> Float[Tensor, "n c h w"]:
        conditions = {"text_embeds": text.pooled, "time_ids": self._sizes(z_t)}
        return self.forward(z_t, t, encoder_hidden_states=text.tokens, added_cond_kwargs=conditions)

    def _sizes(self, z: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 6"]:
        """The paper's micro-conditioning (section 2.2): original size, no crop, target size."""
        size = [side * self.factor for side in z.shape[-2:]]
        return torch.tensor([*size, 0, 0, *size], dtype=z.dtype, device=z.device).expand(len(z), -1)
