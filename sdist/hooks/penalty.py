"""A penalty on attention: inside a region, image tokens do not look at some words. LIME, arXiv 2312.09256, section 4.2.

softmax(s Q K^T + bias), where bias is minus the largest number there is for a cell of the region and an unrelated token, else 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from ..prediction import Branch
from .attach import Attend, Steering, steer
from .injection import check_layout
from .layers import AttentionLayout, Layer

Heads = Float[Tensor, "n heads _ _"]  # queries, keys or values


@dataclass(frozen=True, eq=False)
class Penalty:
    """For one call, in cross-attention of some levels, cells of the region look at no token that is not allowed.

    `region` may have any resolution: a layer reads it at the nearest cell. All `branches` have the same region and tokens per
    image; rows of others are what they would be without, to the bit. An image without an allowed token is left alone.
    """

    branches: tuple[Branch, ...]
    levels: tuple[int, ...]
    region: Bool[Tensor, "b height width"]
    allowed: Bool[Tensor, "b l"]
    size: tuple[int, int]  # (height, width) of the latents

    @contextmanager
    def open(self, network: Any, rows: Mapping[Branch, slice]) -> Iterator[None]:
        layers = penalized(network.layout, self.levels)
        where = [rows[branch] for branch in self.branches]
        with steer(network, {layer.name: self.steering(layer, where) for layer in layers}):
            yield

    def steering(self, layer: Layer, rows: Sequence[slice]) -> Steering:
        """What a layer computes, for the rows of the branches."""
        some = self.allowed.any(1)[:, None, None]
        return partial(_attend, rows, self.inside(layer)[:, :, None] & ~self.allowed[:, None] & some)

    def inside(self, layer: Layer) -> Bool[Tensor, "b cells"]:
        """The region as a layer reads it."""
        return F.interpolate(self.region[:, None].float(), layer.size(*self.size), mode="nearest").flatten(1).bool()


def penalized(layout: AttentionLayout, levels: Sequence[int]) -> list[Layer]:
    """The layers of those levels that look at the text alone. Raises UserError if there are none, or none of the text alone."""
    check_layout(layout)
    return layout.at("cross", *levels)


def _attend(
    rows: Sequence[slice], unrelated: Bool[Tensor, "b cells l"], q: Heads, k: Heads, v: Heads, attend: Attend
) -> Float[Tensor, "n heads cells _"]:
    """Attention of all rows; those of `rows`, b each, with the penalty."""
    bias = torch.zeros(unrelated.shape, dtype=q.dtype, device=q.device).masked_fill(unrelated, torch.finfo(q.dtype).min)[:, None]
    if sum(part.stop - part.start for part in rows) == len(q):
        return attend(q, k, v, bias.repeat(len(rows), 1, 1, 1))  # rows are ordered by branch, then by image
    out = attend(q, k, v).clone()
    for part in rows:
        out[part] = attend(q[part], k[part], v[part], bias)
    return out
