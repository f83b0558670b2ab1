"""Chroma: FLUX.1 schnell retrained without CLIP and with guidance by a null prompt. Lodestone Rock 2025; as diffusers has it."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..hooks.layers import AttentionLayout, Kind, Layer, Projected
from ..prediction import Guidance, Text
from ..registry import FAMILIES
from .base import check_widths
from .flux import T5_TOKENS, Flux, FluxLayout
from .packing import PATCH
from .schedules import check_flow
from .text import PromptEncoder, TextWithT5

NEVER = -1e4  # of a masked key, before the scale; every format holds it, and its probability is 0


class ChromaText(TextWithT5):
    """T5's tokens; T5 reads a prompt without its padding, the transformer with the first token of it. Masked ones are zeros."""

    t5: ClassVar[int] = 0
    t5_tokens: int = T5_TOKENS

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Text:
        ids = self._ids(prompts, 0)
        read = ids != self.tokenizers[0].pad_token_id
        tokens = self.encoders[0](ids, attention_mask=read.long())[0].float()
        mask = torch.arange(ids.shape[1], device=ids.device) <= read.sum(1, keepdim=True)
        return Text(tokens * mask[..., None], mask=mask)


@FAMILIES.register("chroma")
class Chroma(Flux):
    """FLUX's latents, packing and positions, with a mask of the text instead of CLIP's pooled output."""

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

    @cached_property
    def layout(self) -> AttentionLayout:
        return ChromaLayout(self.denoiser)


class ChromaLayout(FluxLayout):
    """FLUX's, but for tokens of text that are masked: their embedding is the bias alone, since they are zeros."""

    def queries_and_keys(self, kind: Kind, layer: Layer, output: Callable[[str], Any]) -> tuple[Projected, Projected]:
        """With one component more per head, whose product is added to what enters the softmax: NEVER where a key is masked."""
        queries, keys = super().queries_and_keys(kind, layer, output)
        if kind == "self":
            return queries, keys
        text = output("context_embedder")
        masked = (text == self._transformer.context_embedder.bias.to(text)).all(-1)
        added = F.pad(NEVER * masked.to(keys), (0, keys.shape[1] - text.shape[1]))
        return _widened(queries, torch.ones_like(queries[..., 0]), layer.heads), _widened(keys, added, layer.heads)


def _widened(x: Projected, column: Float[Tensor, "n l"], heads: int) -> Tensor:
    """Each head with a component more, the same for all."""
    apart = rearrange(x, "n l (heads d) -> n l heads d", heads=heads)
    more = column[..., None, None].expand(-1, -1, heads, -1)
    return torch.cat([apart, more], -1).flatten(2)
