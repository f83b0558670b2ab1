"""IP-Adapter's image tokens: text cross-attention also reads an image. Ye et al. 2023, arXiv 2308.06721, eq. 5.

The layer returns what it returned plus scale softmax(Q K'^T s) V', with keys and values of the image's tokens.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..prediction import Branch
from .attach import Attend, steer
from .injection import Queries, Tokens, check_layout
from .layers import Layer

Projected = Float[Tensor, "b tokens width"]  # of all heads, side by side


class SharedAttention(NamedTuple):
    """For the image's tokens too, the target branch attends as the source branch does, in layers of that level and coarser."""

    source: Branch
    target: Branch
    level: int


@dataclass(frozen=True, eq=False)
class ImageTokens:
    """For one call, rows of these branches also read image tokens; open it after a hook that steers the same layers.

    `keys` and `values` are by layer and branch, each of all images; branches that the call does not ask for are left out, and
    others read none.
    """

    keys: Mapping[str, Mapping[Branch, Projected]]
    values: Mapping[str, Mapping[Branch, Projected]]
    scale: float
    shared: SharedAttention | None = None

    @contextmanager
    def open(self, network: Any, rows: Mapping[Branch, slice]) -> Iterator[None]:
        check_layout(network.layout)
        layers = network.layout.layers("cross")
        with steer(network, {layer.name: partial(self._attend, layer, rows) for layer in layers}):
            yield

    def narrow(self, rows: Int[Tensor, " m"]) -> "ImageTokens":
        """The same for some images."""
        keys, values = (
            {layer: {branch: value[rows] for branch, value in by_branch.items()} for layer, by_branch in part.items()}
            for part in (self.keys, self.values)
        )
        return replace(self, keys=keys, values=values)

    def _attend(self, layer: Layer, rows: Mapping[Branch, slice], q: Queries, k: Tokens, v: Tokens, attend: Attend) -> Queries:
        values = {branch: value for branch, value in self.values[layer.name].items() if branch in rows}
        origins = {branch: self._origin(branch, layer) for branch in values}
        queries = torch.cat([q[rows[origin]] for origin in origins.values()])
        keys = torch.cat([self.keys[layer.name][origin] for origin in origins.values()])
        read = partial(rearrange, pattern="n t (heads d) -> n heads t d", heads=q.shape[1])
        image = F.scaled_dot_product_attention(
            queries, read(keys).to(q), read(torch.cat([*values.values()])).to(q), scale=layer.scale
        )
        added = torch.zeros_like(q)
        for branch, term in zip(values, image.chunk(len(values)), strict=True):
            added[rows[branch]] = term
        return attend(q, k, v) + self.scale * added

    def _origin(self, branch: Branch, layer: Layer) -> Branch:
        """The branch whose queries and keys it attends with."""
        shared = self.shared
        return shared.source if shared and branch == shared.target and layer.level >= shared.level else branch
