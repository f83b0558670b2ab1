"""What a source of regions is: it looks at one network call and says, for each image, where the instruction acts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from ..hooks.layers import AttentionLayout
from ..prediction import Branch, Hook

FINER = 2  # times the latent's side is that of a region

Mask = Bool[Tensor, "height width"]


@dataclass(frozen=True)
class Region:
    """Where an image may change, and why: its segments, the attention of the words, the cells that have most of it."""

    mask: Mask
    labels: Int[Tensor, "height width"] | None = None
    attention: Float[Tensor, "height width"] | None = None
    points: Int[Tensor, " n"] | None = None  # numbered row by row, the strongest first


class RegionSource(ABC):
    """A frozen dataclass whose fields are its configuration."""

    @abstractmethod
    def check(self, layout: AttentionLayout) -> None:
        """Raises UserError for a network that it cannot look at."""

    @abstractmethod
    def hook(self, instructed: Branch, bare: Branch) -> Hook:
        """What it looks at in a call with these branches: rows that read the words, and rows that show the image as it is."""

    @abstractmethod
    def regions(self, seen: Any, related: Sequence[Sequence[int]], generators: Sequence[torch.Generator]) -> list[Region]:
        """Of each image, from what the hook saw and the positions of the words, at least one each; generators are a CPU's."""


def grid_of(size: tuple[int, int]) -> tuple[int, int]:
    """The grid of regions for latents of (height, width)."""
    return FINER * size[0], FINER * size[1]


def from_mask(mask: Float[Tensor, "1 1 _ _"], size: tuple[int, int]) -> Region:
    """The region of the user's mask, any size in 0..1: cells that are at least half inside."""
    return Region(F.interpolate(mask, grid_of(size), mode="area")[0, 0] >= 0.5)


def at_least_one(owner: Any, *names: str) -> None:
    """Raises UserError for a field below 1."""
    for name in names:
        if getattr(owner, name) < 1:
            raise UserError(f"{name} must be at least 1, got {getattr(owner, name)}")
