"""Maps of several resolutions on a common grid, and their maps back: what clustering needs, without the resized stack.

Bilinear resizing with aligned corners is linear and separable: R F = Rh F Rw', and its transpose is Rh' G Rw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

CHUNK = 64  # channels that are resized at a time where all of them are


def resizing(small: int, large: int, like: Tensor) -> Float[Tensor, "large small"]:
    """The matrix that resizes a row of values, linearly, the ends on each other."""
    identity = torch.eye(small, dtype=like.dtype, device=like.device)
    return F.interpolate(identity[None], large, mode="linear", align_corners=True)[0].T


@dataclass(frozen=True, eq=False)
class Level:
    """All channels of one resolution."""

    maps: Float[Tensor, "c h w"]
    rows: Float[Tensor, "height h"]
    columns: Float[Tensor, "width w"]

    def resized(self, maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n height width"]:
        return self.rows @ maps @ self.columns.T

    def transposed(self, maps: Float[Tensor, "n height width"]) -> Float[Tensor, "n h w"]:
        return self.rows.T @ maps @ self.columns


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """The vectors x_p = X_p / |X_p| of an image's cells, X being all maps resized to `grid` = (height, width) and stacked.

    X is never made: a product with it is the sum over resolutions of resized products.
    """

    levels: tuple[Level, ...]
    grid: tuple[int, int]

    @classmethod
    def of(cls, maps: Sequence[Float[Tensor, "_ _ _"]], grid: tuple[int, int]) -> "FeatureMaps":
        """Maps (channels, h, w) of one dtype; those of a resolution are put together."""
        sizes = dict.fromkeys((x.shape[1], x.shape[2]) for x in maps)
        together = {size: torch.cat([x for x in maps if x.shape[1:] == size]) for size in sizes}
        levels = [Level(x, *(resizing(a, b, x) for a, b in zip(size, grid, strict=True))) for size, x in together.items()]
        return cls(tuple(levels), grid)

    @cached_property
    def norms(self) -> Float[Tensor, "height width"]:
        """|X_p|."""
        parts = [level.resized(part).square().sum(0) for level in self.levels for part in level.maps.split(CHUNK)]
        return torch.stack(parts).sum(0).sqrt().clamp(min=torch.finfo(parts[0].dtype).tiny)

    def at(self, cells: Int[Tensor, " k"]) -> Float[Tensor, "k c"]:
        """x_p of some cells, which are numbered row by row; channels of a resolution stand together."""
        y, x = cells // self.grid[1], cells % self.grid[1]
        rows = [einsum(a.rows[y], a.maps, a.columns[x], "k h, c h w, k w -> k c") for a in self.levels]
        return torch.cat(rows, 1) / self.norms[y, x, None]

    def products(self, vectors: Float[Tensor, "k c"]) -> Float[Tensor, "k height width"]:
        """x_p . v of every cell and each vector."""
        parts = vectors.split([len(level.maps) for level in self.levels], 1)
        sums = [a.resized(einsum(v, a.maps, "k c, c h w -> k h w")) for a, v in zip(self.levels, parts, strict=True)]
        return torch.stack(sums).sum(0) / self.norms

    def means(self, members: Float[Tensor, "k height width"]) -> Float[Tensor, "k c"]:
        """The mean x_p of each group of cells, given as ones; none may be empty."""
        weights = members / (members.sum((1, 2), keepdim=True) * self.norms)
        return torch.cat([einsum(a.transposed(weights), a.maps, "k h w, c h w -> k c") for a in self.levels], 1)
