"""Attention maps of chosen tokens, refined by self-attention, without ever building an N x N matrix.

The mean over layers and heads of softmax(Q K^T s) a is linear in a, so it is the mean of
scaled_dot_product_attention(Q, K, V = a): the kernel that the network itself uses, with a one-column value.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..prediction import Branch
from .attach import Tape, record
from .layers import AttentionLayout, Kind, Layer, check_tokens

Columns = Float[Tensor, "b n c"]
DENSE = 1024  # tokens whose self-attention may be written out: 4 MiB per image
Queries = dict[Layer, tuple[Tensor, Tensor]]  # layer -> (queries, keys), each (b, tokens, heads x width)


@dataclass(frozen=True)
class Attention:
    """Queries and keys of one forward, with an image axis, for latents of `size` = (height, width)."""

    cross: Queries
    self: Queries
    size: tuple[int, int]

    def narrow(self, rows: Int[Tensor, " m"]) -> "Attention":
        cross, self_ = ({k: (q[rows], v[rows]) for k, (q, v) in group.items()} for group in (self.cross, self.self))
        return Attention(cross, self_, self.size)

    def text_map(self, weights: Float[Tensor, "b l"]) -> Float[Tensor, "b 1 h w"]:
        """The mean over layers and heads of the attention to the text, its tokens added up with these weights."""
        maps = []
        for layer, (q, k) in self.cross.items():
            mean = _attend_to_text(layer, q, k, weights[..., None])
            maps.append(rearrange(mean, "b (h w) c -> b c h w", h=layer.size(*self.size)[0]))
        return torch.stack(maps).mean(0)

    @property
    def grid(self) -> tuple[int, int]:
        """(height, width) of the self-attention that was recorded."""
        return next(iter(self.self)).size(*self.size)

    def spread(self) -> Callable[[Columns], Columns]:
        """The mean over layers and heads of self-attention, as a function of columns; by its matrix where tokens are few."""
        if self.grid[0] * self.grid[1] > DENSE:
            return self._spread
        matrix: Any = sum(_mean_matrix(layer, q, k) for layer, (q, k) in self.self.items()) / len(self.self)
        return lambda columns: matrix @ columns

    def _spread(self, columns: Columns) -> Columns:
        return torch.stack([_attend(layer, q, k, columns) for layer, (q, k) in self.self.items()]).mean(0)

    def refined(self, focus: Float[Tensor, "b l"], times: int = 1, keep: float = 0.0) -> Float[Tensor, "b 1 h w"]:
        """Where the focus tokens are looked at, spread along self-attention, at the self-attention's resolution."""
        return self.refinements(F.interpolate(self.cross_map(focus), self.grid, mode="bicubic"), times, keep)[-1]

    def refinements(self, start: Float[Tensor, "b 1 h w"], times: int, keep: float) -> list[Float[Tensor, "b 1 h w"]]:
        """s_0 .. s_N, each spread along self-attention: s_i = keep s_{i-1} + (1 - keep) A s_{i-1} (ViMAEdit, eq. 9).

        The map s_0 has the self-attention's resolution.
        """
        columns = [rearrange(start, "b 1 h w -> b (h w) 1")]
        spread = self.spread() if times > 1 else self._spread  # once, a matrix does not pay
        for _ in range(times):
            columns.append(keep * columns[-1] + (1 - keep) * spread(columns[-1]))
        return [rearrange(c, "b (h w) 1 -> b 1 h w", h=self.grid[0]) for c in columns]

    def cross_map(self, focus: Float[Tensor, "b l"]) -> Float[Tensor, "b 1 h w"]:
        """The mean probability of the focus tokens over layers, heads and tokens, at the cross-attention's resolution.

        Where they take most of the attention, a constant is left out: minus the share of all other tokens is the same map,
        whose digits do not drown in the constant.
        """
        count = focus.sum(1, keepdim=True).clamp(min=1)
        sums = torch.stack([focus, 1 - focus], 2) / count[..., None]  # of the focus tokens, of the others
        maps = []
        for layer, (q, k) in self.cross.items():
            mean = _attend_to_text(layer, q, k, sums) if k.shape[1] == sums.shape[1] else _attend_jointly(layer, q, k, sums)
            maps.append(rearrange(mean, "b (h w) c -> c b h w", h=layer.size(*self.size)[0]))
        focused, others = torch.stack(maps).mean(0)
        most = focused.mean((1, 2), keepdim=True) > others.mean((1, 2), keepdim=True)
        return torch.where(most, -others, focused)[:, None]


@dataclass(frozen=True)
class AttentionRecorder:
    """Records queries and keys of one branch at one level of cross-attention and one of self-attention."""

    branch: Branch
    cross_level: int
    self_level: int

    @contextmanager
    def open(self, network: Any, rows: Mapping[Branch, slice]) -> Iterator[Callable[[tuple[int, int]], Attention]]:
        layout: AttentionLayout = network.layout
        layers: dict[Kind, list[Layer]] = {
            "cross": layout.at("cross", self.cross_level),
            "self": layout.at("self", self.self_level),
        }
        names = [name for kind, group in layers.items() for layer in group for name in layout.reads(kind, layer)]
        with record(network, names, rows[self.branch]) as tape:
            yield lambda size: Attention(
                queries_of(layout, "cross", layers["cross"], tape, size),
                queries_of(layout, "self", layers["self"], tape, size),
                size,
            )


def queries_of(layout: AttentionLayout, kind: Kind, layers: Sequence[Layer], tape: Tape, size: tuple[int, int]) -> Queries:
    """The layers' queries and keys in float32. Raises UserError if tokens are missing."""
    pairs = {layer: layout.queries_and_keys(kind, layer, tape.__getitem__) for layer in layers}
    for layer, (queries, _) in pairs.items():
        check_tokens(layer, queries.shape[1], size)
    return {layer: (queries.float(), keys.float()) for layer, (queries, keys) in pairs.items()}


def attention_to(layer: Layer, q: Tensor, k: Tensor, columns: Columns) -> Float[Tensor, "b _ c"]:
    """The mean over heads of softmax(Q K^T s) columns, one row per token; an image's keys behind the text's count as 0."""
    if k.shape[1] == columns.shape[1]:
        return _attend_to_text(layer, q, k, columns)
    return _attend(layer, q, k, F.pad(columns, (0, 0, 0, k.shape[1] - columns.shape[1])))


def _mean_matrix(layer: Layer, q: Tensor, k: Tensor) -> Float[Tensor, "b n n"]:
    """softmax(Q K^T s), its mean over heads; one image at a time, to bound the memory."""
    q, k = _heads(layer, q), _heads(layer, k)
    return torch.stack([(q[i] @ k[i].mT * layer.scale).softmax(-1).mean(0) for i in range(len(q))])


def _heads(layer: Layer, x: Tensor) -> Tensor:
    return rearrange(x, "b n (heads d) -> b heads n d", heads=layer.heads)


def _attend_to_text(layer: Layer, q: Tensor, k: Tensor, columns: Columns) -> Float[Tensor, "b _ c"]:
    """The mean over heads of softmax(Q K^T s) columns, where keys are few and precision counts."""
    probabilities = (_heads(layer, q) @ _heads(layer, k).mT * layer.scale).softmax(-1)
    return reduce(probabilities, "b heads n l -> b n l", "mean") @ columns


def _attend_jointly(layer: Layer, q: Tensor, k: Tensor, columns: Columns) -> Float[Tensor, "b _ c"]:
    """The same where keys of the image follow those of the text: they are no focus tokens, so they count as others."""
    each = columns[:, :1].sum(2)
    image = torch.stack([torch.zeros_like(each), each], 2).expand(-1, k.shape[1] - columns.shape[1], -1)
    return _attend(layer, q, k, torch.cat([columns, image], 1))


def _attend(layer: Layer, q: Tensor, k: Tensor, columns: Columns) -> Float[Tensor, "b _ c"]:
    """The mean over heads of softmax(Q K^T s) columns.

    They are padded with zeros to the width of a head: the fused kernels, which never hold an N x N matrix, want values as wide
    as queries.
    """
    q, k, count = _heads(layer, q), _heads(layer, k), columns.shape[-1]
    value = F.pad(columns, (0, q.shape[-1] - count))[:, None].expand_as(k).contiguous()
    return F.scaled_dot_product_attention(q, k, value, scale=layer.scale)[..., :count].mean(1)
