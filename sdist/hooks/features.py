"""Outputs of self-attention layers, for losses that compare features (CDS)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from ..prediction import Branch
from .attach import Tape, record
from .layers import Layer, check_tokens


@dataclass(frozen=True)
class Features:
    """For each branch, the layers' outputs in module order, each (b, channels, height, width)."""

    by_branch: dict[Branch, list[Float[Tensor, "b _ _ _"]]]

    def narrow(self, rows: Int[Tensor, " m"]) -> "Features":
        return Features({branch: [x[rows] for x in layers] for branch, layers in self.by_branch.items()})


@dataclass(frozen=True)
class FeatureRecorder:
    """Records the outputs of the layers that describe the image's structure; a UNet's are the self-attention of its up blocks."""

    branches: tuple[Branch, ...]

    @contextmanager
    def open(self, network: Any, rows: Mapping[Branch, slice]) -> Iterator[Callable[[tuple[int, int]], Features]]:
        layers = network.layout.features()
        with record(network, [layer.name for layer in layers], slice(None)) as tape:

            def collect(size: tuple[int, int]) -> Features:
                grids = outputs_of(layers, tape, size).values()
                return Features({b: [x[rows[b]] for x in grids] for b in self.branches})

            yield collect


def outputs_of(layers: Sequence[Layer], tape: Tape, size: tuple[int, int]) -> dict[str, Float[Tensor, "n _ _ _"]]:
    """The layers' outputs in float32, each (n, channels, height, width), by name. Raises UserError if tokens are missing."""
    for layer in layers:
        check_tokens(layer, tape[layer.name].shape[1], size)
    return {a.name: rearrange(tape[a.name].float(), "n (h w) d -> n d h w", h=a.size(*size)[0]) for a in layers}
