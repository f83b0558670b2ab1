"""The region where words are looked at: LUSD's attention mask (arXiv 2503.11054, section 3.3), cut at a value."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..errors import UserError
from ..hooks.attention import Attention, AttentionRecorder
from ..hooks.layers import AttentionLayout
from ..prediction import Branch, Hook
from ..registry import REGIONS
from .base import Region, RegionSource, at_least_one, grid_of


@REGIONS.register("attention")
@dataclass(frozen=True)
class AttentionRegion(RegionSource):
    """Cells whose refined cross-attention, scaled to 0..1, reaches a threshold."""

    threshold: float = 0.5
    cross_level: int = 1  # cross-attention at 1 / 2^level of the latent's side
    self_level: int = 1  # self-attention that refines it
    iterations: int = 1  # of refining
    keep: float = 0.0  # part of the map before that each keeps

    def __post_init__(self) -> None:
        at_least_one(self, "iterations")
        if not 0 < self.threshold <= 1:
            raise UserError(f"threshold of a region must be within 0..1, not 0, got {self.threshold}")
        if not 0 <= self.keep < 1:
            raise UserError(f"keep of a region must be within 0..1, not 1, got {self.keep}")

    def check(self, layout: AttentionLayout) -> None:
        layout.at("cross", self.cross_level)
        layout.at("self", self.self_level)

    def hook(self, instructed: Branch, bare: Branch) -> Hook:
        return AttentionRecorder(instructed, self.cross_level, self.self_level)

    def regions(self, seen: Attention, related: Sequence[Sequence[int]], generators: Sequence[torch.Generator]) -> list[Region]:
        keys = next(iter(seen.cross.values()))[1]
        focus = keys.new_zeros(len(related), keys.shape[1])
        for row, tokens in enumerate(related):
            focus[row, list(tokens)] = 1.0
        maps = F.interpolate(seen.refined(focus, self.iterations, self.keep), grid_of(seen.size), mode="bicubic")[:, 0]
        return [self.region(attention) for attention in maps]

    def region(self, attention: torch.Tensor) -> Region:
        low, high = attention.min(), attention.max()
        return Region(attention - low >= self.threshold * (high - low), attention=attention)
