"""A mask from attention. LUSD, Chinchuthakun et al. 2025, arXiv 2503.11054, section 3.3."""

import logging
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from jaxtyping import Bool
from torch import Tensor

from ..hooks.attention import AttentionRecorder
from ..prediction import TARGET, Branch, Hook, Prediction
from ..registry import REGULARIZERS
from .mask import AveragedMask, Mask, resize, unit_range

log = logging.getLogger("sdist")


@REGULARIZERS.register("attention_mask")
@dataclass(frozen=True, kw_only=True)
class AttentionMask(AveragedMask):
    """M = cross-attention of the noun tokens refined by self-attention, resized to the latents and scaled to 0..1.

    An image without noun tokens is not masked.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"words", "mask"})

    cross_level: int = 2  # cross-attention at 1 / 2^level of the latent's side: 16 x 16 of 64 x 64 on SD 1.5
    self_level: int = 1  # self-attention at 1 / 2^level: 32 x 32 of 64 x 64 on SD 1.5

    @property
    def branches(self) -> tuple[Branch, ...]:
        return (TARGET,)

    @property
    def hooks(self) -> tuple[Hook, ...]:
        return (AttentionRecorder(TARGET, self.cross_level, self.self_level),)

    def newest(self, p: Prediction) -> Mask:
        return unit_range(resize(p.recorded[self.hooks[0]].refined(p.edit.focus), p.latents))

    def applies(self, p: Prediction) -> Bool[Tensor, " b"]:
        return p.edit.focus.any(1)

    def adapted(self, network: Any, scale: Any) -> "AttentionMask":
        """With the nearest level that the network has, where a default level has no attention."""
        levels = {}
        for kind in ("cross", "self"):
            key = f"{kind}_level"
            wanted = getattr(self, key)
            levels[key] = network.layout.nearest(kind, wanted) if wanted == getattr(scale, key) else wanted
            if levels[key] != wanted:
                text = "%s: this model has none at 1/%d of the latent's side, 1/%d is used"
                log.warning(text, key, 2**wanted, 2 ** levels[key])
        return replace(self, **levels)
