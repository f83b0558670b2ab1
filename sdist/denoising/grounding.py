"""Where an edit belongs, from attention: ViMAEdit, arXiv 2410.10496, section 4.3.

Each branch's map of its words, s_0, is spread along self-attention, s_i = keep s_{i-1} + (1 - keep) A s_{i-1} (eq. 9). The maps
are compared with two thresholds: where one of them is above the first the edit may happen, above the second it may take noise.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from ..hooks.attention import Attention
from ..hooks.injection import TokenMap
from ..regularizers.mask import unit_range

Mask = Float[Tensor, "b 1 h w"]
Maps = Float[Tensor, "b branch h w"]


@dataclass(frozen=True)
class Grounding:
    """Maps of the words that the edit is about: in the source those that go, in the target those that come."""

    iterations: int = 5  # N; 0: cross-attention alone
    keep: float = 0.5  # gamma, of the map before
    threshold: float = 0.5  # delta: above it the target may differ from the source
    critical_threshold: float = 0.8  # delta': above it steps add noise
    start: float = 0.0  # part of the steps before the first map
    add_up: bool = False  # maps of all steps since then (release), or of this step alone (paper)

    def __post_init__(self) -> None:
        for name in ("keep", "start", "threshold", "critical_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"grounding.{name} is within 0..1, got {getattr(self, name)}")
        if self.threshold == 1:
            raise UserError("grounding.threshold is below 1, got 1.0: no map is above that, so that nothing could be edited")
        if self.iterations < 0:
            raise UserError(f"grounding.iterations is at least 0, got {self.iterations}")

    def first(self, steps: int) -> int:
        """The step k = 0, 1, .. that has the first map."""
        return max(int(self.start * steps) - 1, 0)

    def refined(self, coarse: Mask, attention: Attention) -> list[Float[Tensor, "b 1 _ _"]]:
        """s_0 .. s_N at the self-attention's size, without their common mean, so that the digits of a flat map survive."""
        start = F.interpolate(coarse, attention.grid, mode="nearest")
        return attention.refinements(start - start.mean((2, 3), keepdim=True), self.iterations, self.keep)


@dataclass(frozen=True, eq=False)
class Focus:
    """Weights of tokens per image: 1 at those of the branch's words; a row of zeros: the branch has none."""

    source: Float[Tensor, "b l"]
    target: Float[Tensor, "b l"]

    def coarse(self, source: Attention, target: Attention, tokens: TokenMap | None) -> tuple[Mask, Mask]:
        """s_0 of both branches; `tokens`: how the target's attention was made of the source's, which is what counts."""
        if tokens is None:
            return source.text_map(self.source), target.text_map(self.target)
        carried = (tokens.carry.to(self.target) @ self.target[..., None])[..., 0]
        kept = target.text_map(tokens.keep.to(self.target) * self.target)
        return source.text_map(self.source), source.text_map(carried) + kept


class Masks(NamedTuple):
    """At the latents' size, 0 or 1: where the edit may happen, and where steps add noise."""

    edit: Mask
    critical: Mask


class Saliency:
    """The maps of a walk; what was left out of them, their means, is kept apart."""

    def __init__(self, settings: Grounding, focus: Focus) -> None:
        self.settings, self.focus = settings, focus
        self.maps: Maps | None = None
        self.means: Any = 0.0

    def look(self, source: Attention, target: Attention, tokens: TokenMap | None, is_injected: bool) -> None:
        """Takes in the attention of a step; `is_injected`: the target's self-attention was the source's."""
        coarse = self.focus.coarse(source, target, tokens)
        spreads = (source, source if is_injected else target)
        newest = torch.cat([self.settings.refined(s, a)[-1] for s, a in zip(coarse, spreads, strict=True)], 1)
        means = torch.cat([s.mean((2, 3), keepdim=True) for s in coarse], 1)
        if self.maps is not None and self.settings.add_up:
            newest, means = self.maps + newest, self.means + means
        self.maps, self.means = newest, means

    @property
    def whole(self) -> Maps:
        """The maps with their means, as they are defined."""
        assert self.maps is not None
        return self.maps + self.means

    @property
    def has_words(self) -> Mask:
        """1 for images of which a branch has words, (b, 1, 1, 1)."""
        return (self.focus.source.any(1) | self.focus.target.any(1)).float()[:, None, None, None]

    def scaled(self, size: tuple[int, int]) -> Mask:
        """The larger of both branches' maps, each scaled to 0..1; a branch without words has none."""
        assert self.maps is not None
        has_words = torch.stack([f.any(1) for f in (self.focus.source, self.focus.target)], 1)[..., None, None]
        return F.interpolate((unit_range(self.maps) * has_words).amax(1, keepdim=True), size, mode="nearest")

    def masks(self, size: tuple[int, int]) -> Masks:
        """Of images without any words all ones, and no noise."""
        most = self.scaled(size)
        edit = torch.maximum((most > self.settings.threshold).to(most), 1 - self.has_words)
        return Masks(edit, (most > self.settings.critical_threshold).to(most))
