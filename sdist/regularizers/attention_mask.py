"""A mask from attention. LUSD, Chinchuthakun et al. 2025, arXiv 2503.11054, section 3.3."""

import logging
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from jaxtyping import Bool
from torch import Tensor

from ..errors import UserError
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
    refinements: int = 1  # by self-attention; 0: cross-attention alone
    keep: float = 0.0  # part of the map before that each refinement keeps (ViMAEdit: 5 refinements, keep 0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refinements < 0 or not 0 <= self.keep <= 1:
            raise UserError(f"refinements is at least 0 and keep within 0..1, got {self.refinements} and {self.keep}")

    @property
    def branches(self) -> tuple[Branch, ...]:
        return (TARGET,)

    @property
    def hooks(self) -> tuple[Hook, ...]:
        return (AttentionRecorder(TARGET, self.cross_level, self.self_level),)

    def newest(self, p: Prediction) -> Mask:
        return unit_range(resize(p.recorded[self.hooks[0]].refined(p.edit.focus, self.refinements, self.keep), p.latents))

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
