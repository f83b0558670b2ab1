"""Prompt-to-Prompt's injection: one branch attends as another does. Hertz et al. 2022, arXiv 2208.01626, section 3.

With p = softmax(s Q K^T) the maps of the source and of the target branch, both layers' results are had without a map, since
attention is linear in the values: p_source V is attention itself with Q and K of the source rows, and
(p_source carry + p_target keep) V = p_source (carry V) + p_target (keep V), which is attention twice.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..prediction import Branch
from .attach import Attend, Steering, steer
from .layers import AttentionLayout

Queries = Float[Tensor, "n heads queries d"]
Tokens = Float[Tensor, "n heads tokens d"]  # keys and values: as many as queries in self-attention, of words in cross-attention


@dataclass(frozen=True, eq=False)
class TokenMap:
    """How the target's cross-attention is made of the source's.

    Its map at token j is sum_i p_source[i] carry[i, j] + p_target[j] keep[j].
    """

    carry: Float[Tensor, "b source target"]
    keep: Float[Tensor, "b target"]

    @cached_property
    def keeps(self) -> bool:
        """Whether anything of the target's own maps is left."""
        return bool(self.keep.any())


@dataclass(frozen=True, eq=False)
class Injection:
    """For one call, the target branch attends as the source branch does, with its own values.

    Cross-attention: in all layers, through `tokens`. Self-attention: in the layers of `self_level` and coarser ones. None leaves
    the one or the other as it is. Rows of other branches are what they would be without, to the bit.
    """

    source: Branch
    target: Branch
    tokens: TokenMap | None
    self_level: int | None

    @contextmanager
    def open(self, network: Any, rows: Mapping[Branch, slice]) -> Iterator[None]:
        check_layout(network.layout)
        where, steerings = (rows[self.source], rows[self.target]), dict[str, Steering]()
        if self.tokens is not None:
            cross = partial(inject_tokens, *where, self.tokens)
            steerings |= {layer.name: cross for layer in network.layout.layers("cross")}
        if self.self_level is not None:
            coarse = [layer for layer in network.layout.layers("self") if layer.level >= self.self_level]
            steerings |= {layer.name: partial(inject, *where) for layer in coarse}
        with steer(network, steerings):
            yield


def check_layout(layout: AttentionLayout) -> None:
    """Raises UserError for a model that does not look at text and image in layers of their own."""
    text, image = ({layer.name for layer in layout.layers(kind)} for kind in ("cross", "self"))
    if not text or text & image:
        what = "looks at both in one layer" if text else "has no layers that look at text"
        raise UserError(
            f"attention is changed in layers for the text apart from those for the image, but this model {what}; methods "
            "that change none, such as flowedit, work with it"
        )


def inject(source: slice, target: slice, q: Queries, k: Tokens, v: Tokens, attend: Attend) -> Queries:
    """The target rows become p_source V."""
    return attend(copied(q, source, target), copied(k, source, target), v)


def inject_tokens(source: slice, target: slice, tokens: TokenMap, q: Queries, k: Tokens, v: Tokens, attend: Attend) -> Queries:
    """The target rows become (p_source carry + p_target keep) V."""
    carried = einsum(tokens.carry.to(v), v[target], "b i j, b h j d -> b h i d")
    if not tokens.keeps:
        return inject(source, target, q, k, _with(v, target, carried), attend)
    kept = tokens.keep.to(v)[:, None, :, None] * v[target]
    from_target, from_source = attend(q, k, _with(v, target, kept)), attend(q, k, _with(v, source, carried))
    return _with(from_target, target, from_target[target] + from_source[source])


def copied(x: Tensor, source: slice, target: slice) -> Tensor:
    """The same with the source's rows in the place of the target's."""
    return _with(x, target, x[source])


def _with(x: Tensor, rows: slice, values: Tensor) -> Tensor:
    return torch.cat([x[: rows.start], values, x[rows.stop :]])
