"""Chroma: FLUX.1 schnell retrained without CLIP and with guidance by a null prompt. Lodestone Rock 2025; as diffusers has it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..hooks.layers import AttentionLayout
from ..prediction import Guidance, Text
from ..registry import FAMILIES
from .base import check_widths
from .flux import T5_TOKENS, Flux
from .packing import PATCH
from .schedules import check_flow
from .text import PromptEncoder, TextWithT5


class ChromaText(TextWithT5):
    """T5's tokens; T5 reads a prompt without its padding, the transformer with the first token of it."""

    t5: ClassVar[int] = 0
    t5_tokens: int = T5_TOKENS

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Text:
        ids = self._ids(prompts, 0)
        read = ids != self.tokenizers[0].pad_token_id
        tokens = self.encoders[0](ids, attention_mask=read.long())[0].float()
        return Text(tokens, mask=torch.arange(ids.shape[1], device=ids.device) <= read.sum(1, keepdim=True))


@FAMILIES.register("chroma")
class Chroma(Flux):
    """FLUX's latents, packing and positions; text is masked, so that joint attention cannot be read as FLUX's is."""

    pipeline_name = "ChromaPipeline"
    components: ClassVar[Mapping[str, str]] = {
        "transformer": "ChromaTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "T5EncoderModel",
        "tokenizer": "T5Tokenizer",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    }

    def make_text(self, parts: Mapping[str, Any], options: Mapping[str, Any]) -> PromptEncoder:
        return ChromaText([parts["text_encoder"]], [parts["tokenizer"]])

    def check(self) -> None:
        check_flow(self.scheduler)
        config, t5 = self.denoiser.config, self.text.encoders[0].config
        widths = {
            "latent channels": (config.in_channels, PATCH**2 * self.channels),
            "text width": (config.joint_attention_dim, t5.d_model),
        }
        check_widths("Chroma", "transformer", widths)

    @property
    def guidance(self) -> Guidance:
        return "cfg"

    def conditioning(self, text: Text, guidance: Float[Tensor, " n"] | None, places: int) -> dict[str, Tensor | None]:
        """A mask of truth values, as the model was trained with; diffusers' pipeline adds its 0 and 1 to the logits."""
        assert text.mask is not None
        return {"attention_mask": torch.cat([text.mask, text.mask.new_ones(len(text.mask), places)], 1)}

    @property
    def layout(self) -> AttentionLayout:
        return super(Flux, self).layout  # refused
