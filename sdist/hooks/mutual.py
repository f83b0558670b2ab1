"""Mutual self-attention: one branch looks at another's image. MasaCtrl, Cao et al. 2023, arXiv 2304.08465, section 4.1.

With its own queries and the other's keys and values it keeps its own layout and is made of what the other shows.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..prediction import Branch
from .attach import Attend, steer
from .injection import Queries, Tokens, check_layout, copied
from .layers import AttentionLayout, Layer


@dataclass(frozen=True, eq=False)
class MutualSelfAttention:
    """For one call, branches read the keys and values of others, in the decoder's self-attention of that level and finer ones.

    Rows of branches that read no other are what they would be without, to the bit.
    """

    reads: Mapping[Branch, Branch]  # by who reads; those that the call does not ask for are left out
    level: int

    @contextmanager
    def open(self, network: Any, rows: Mapping[Branch, slice]) -> Iterator[None]:
        pairs = [(rows[read], rows[branch]) for branch, read in self.reads.items() if branch in rows]
        layers = decoder_layers(network.layout, self.level)
        with steer(network, {layer.name: partial(_read_others, pairs) for layer in layers}):
            yield


def decoder_layers(layout: AttentionLayout, level: int) -> list[Layer]:
    """The decoder's self-attention of that level and finer ones. Raises UserError for a model without layers for the text."""
    check_layout(layout)
    return [layer for layer in layout.layers("self") if layer.part == "up" and layer.level <= level]


def _read_others(pairs: Sequence[tuple[slice, slice]], q: Queries, k: Tokens, v: Tokens, attend: Attend) -> Queries:
    for read, reader in pairs:  # none of those that are read reads another
        k, v = copied(k, read, reader), copied(v, read, reader)
    return attend(q, k, v)
