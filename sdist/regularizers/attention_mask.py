"""A mask from attention. LUSD, Chinchuthakun et al. 2025, arXiv 2503.11054, section 3.3."""

import logging
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..diffusion import per_image
from ..errors import UserError
from ..hooks.attention import AttentionRecorder
from ..prediction import SOURCE_SOURCE, TARGET, Branch, Hook, Prediction, Prompt
from ..registry import REGULARIZERS
from .mask import AveragedMask, Mask, resize, unit_range

log = logging.getLogger("sdist")


@REGULARIZERS.register("attention_mask")
@dataclass(frozen=True, kw_only=True)
class AttentionMask(AveragedMask):
    """M = cross-attention of the noun tokens refined by self-attention, resized to the latents and scaled to 0..1.

    Refined several times, of both branches and cut at a threshold, it is ViMAEdit's (arXiv 2410.10496, section 4.3).

    An image without noun tokens is not masked.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"words", "mask"})

    cross_level: int = 2  # cross-attention at 1 / 2^level of the latent's side: 16 x 16 of 64 x 64 on SD 1.5
    self_level: int = 1  # self-attention at 1 / 2^level: 32 x 32 of 64 x 64 on SD 1.5
    refinements: int = 1  # by self-attention; 0: cross-attention alone
    keep: float = 0.0  # part of the map before that each refinement keeps (ViMAEdit: 5 refinements, keep 0.5)
    maps: Literal["target", "both"] = "target"  # both: or where the source's words are looked at in the source image
    threshold: float | None = None  # the map is 1 above it, else 0 (ViMAEdit: 0.5); null: it stays as it is

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refinements < 0 or not 0 <= self.keep <= 1:
            raise UserError(f"refinements is at least 0 and keep within 0..1, got {self.refinements} and {self.keep}")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise UserError(f"threshold of a mask must be within 0..1, not 1, got {self.threshold}")

    @property
    def follows(self) -> frozenset[Prompt]:
        return frozenset({"target", "source"} if self.maps == "both" else {"target"})

    @property
    def branches(self) -> tuple[Branch, ...]:
        return (TARGET, SOURCE_SOURCE) if self.maps == "both" else (TARGET,)

    @property
    def hooks(self) -> tuple[Hook, ...]:
        return tuple(AttentionRecorder(branch, self.cross_level, self.self_level) for branch in self.branches)

    def newest(self, p: Prediction) -> Mask:
        """The largest of the branches' maps, each scaled by itself; that of a branch without words is 0."""
        maps = [self._map(p, hook, focus) for hook, focus in zip(self.hooks, self._focus(p), strict=True)]
        largest = torch.cat(maps, 1).amax(1, keepdim=True)
        return largest if self.threshold is None else (largest > self.threshold).to(largest)

    def applies(self, p: Prediction) -> Bool[Tensor, " b"]:
        return torch.stack(self._focus(p)).any(0).any(1)

    def _map(self, p: Prediction, hook: Hook, focus: Float[Tensor, "b l"]) -> Mask:
        raw = p.recorded[hook].refined(focus, self.refinements, self.keep)
        return unit_range(resize(raw, p.latents)) * per_image(focus.any(1).to(raw))

    def _focus(self, p: Prediction) -> list[Float[Tensor, "b l"]]:
        """1 at the tokens of each branch's words."""
        if self.maps == "target":
            return [p.edit.focus]
        source = p.edit.source_focus
        return [p.edit.focus, torch.zeros_like(p.edit.focus) if source is None else source]

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
