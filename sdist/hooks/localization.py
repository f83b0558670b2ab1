"""What a region is found by: outputs of attention layers, and where the text's tokens are looked at. LIME, arXiv 2312.09256."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UserError
from ..prediction import Branch
from .attach import record
from .attention import Columns, Queries, attention_to, queries_of
from .features import outputs_of
from .layers import AttentionLayout, Layer


@dataclass(frozen=True)
class Localization:
    """`features`: outputs of the layers, each (b, channels, h, w); `queries`: of the layers that look at the text."""

    features: Mapping[str, Float[Tensor, "b _ _ _"]]
    queries: Queries
    size: tuple[int, int]

    def narrow(self, rows: Int[Tensor, " m"]) -> "Localization":
        features = {name: x[rows] for name, x in self.features.items()}
        return Localization(features, {layer: (q[rows], k[rows]) for layer, (q, k) in self.queries.items()}, self.size)

    def maps(self, columns: Columns) -> dict[str, Float[Tensor, "b c _ _"]]:
        """Of every layer the mean over heads of the probabilities, times `columns` (one row per token)."""
        return {
            layer.name: rearrange(attention_to(layer, q, k, columns), "b (h w) c -> b c h w", h=layer.size(*self.size)[0])
            for layer, (q, k) in self.queries.items()
        }


@dataclass(frozen=True)
class LocalizationRecorder:
    """Records, at some levels, outputs of attention layers for one branch, and queries and keys to the text for another."""

    features_of: Branch
    attention_of: Branch
    levels: tuple[int, ...]

    @contextmanager
    def open(self, network: Any, rows: Mapping[Branch, slice]) -> Iterator[Callable[[tuple[int, int]], Localization]]:
        layout: AttentionLayout = network.layout
        layers, cross = layers_at(layout, self.levels)
        reads = [name for layer in cross for name in layout.reads("cross", layer)]
        with (
            record(network, [layer.name for layer in layers], rows[self.features_of]) as outputs,
            record(network, reads, rows[self.attention_of]) as tape,
        ):
            yield lambda size: Localization(
                outputs_of(layers, outputs, size), queries_of(layout, "cross", cross, tape, size), size
            )


def layers_at(layout: AttentionLayout, levels: Sequence[int]) -> tuple[list[Layer], list[Layer]]:
    """The layers of those levels whose outputs are features, and those that look at the text; levels that are not there add none.

    Raises UserError if there is none at any.
    """
    cross, outputs = layout.at("cross", *levels), layout.outputs()
    chosen = [layer for layer in outputs if layer.level in levels]
    if not chosen:
        have = sorted({layer.level for layer in outputs})
        raise UserError(f"this model has no features at the levels {sorted(levels)}; have levels {have}")
    return chosen, cross
