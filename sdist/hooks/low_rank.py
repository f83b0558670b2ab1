"""LoRA (Hu et al. 2022, arXiv 2106.09685) for one network call, another one for each image; no weight moves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import UserError
from ..prediction import Branch
from .attach import add

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")  # of attention, as diffusers names them in every architecture


class Factors(NamedTuple):
    """Of one layer: it gives up (down x) more, one row per image."""

    down: Float[Tensor, "b rank inputs"]
    up: Float[Tensor, "b outputs rank"]


def projections(network: Any) -> dict[str, nn.Linear]:
    """Those of all attention layers of network.denoiser, by name. Raises UserError if there are none."""
    modules = network.denoiser.named_modules()
    linear = {name: module for name, module in modules if name.endswith(PROJECTIONS) and isinstance(module, nn.Linear)}
    if not linear:
        kind = type(network.denoiser).__name__
        raise UserError(f"{kind} has no linear layers named {', '.join(PROJECTIONS)}, so it cannot have a LoRA")
    return linear


@dataclass(frozen=True, eq=False)
class LowRank:
    """For one call, the layers are changed by the factors that each image's vector of `values` holds, layer after layer."""

    layers: Mapping[str, nn.Linear]
    rank: int
    values: Float[Tensor, "b n"]

    @contextmanager
    def open(self, network: Any, rows: Mapping[Branch, slice]) -> Iterator[None]:
        with add(network, {name: partial(_change, factors) for name, factors in self.factors().items()}):
            yield

    def factors(self) -> dict[str, Factors]:
        """Views of the values."""
        sizes = [(self.rank, n) for layer in self.layers.values() for n in (layer.in_features, layer.out_features)]
        parts = iter(self.values.split([prod(size) for size in sizes], 1))
        return {
            name: Factors(
                next(parts).unflatten(1, (self.rank, layer.in_features)),
                next(parts).unflatten(1, (layer.out_features, self.rank)),
            )
            for name, layer in self.layers.items()
        }

    @staticmethod
    def count(layers: Mapping[str, nn.Linear], rank: int) -> int:
        """How many values an image has."""
        return sum(rank * (layer.in_features + layer.out_features) for layer in layers.values())

    @staticmethod
    def start(layers: Mapping[str, nn.Linear], rank: int, generator: torch.Generator) -> Float[Tensor, " n"]:
        """Values without an effect: `down` normal with SD 1 / rank, `up` zero."""
        downs = [torch.randn(rank * layer.in_features, generator=generator) / rank for layer in layers.values()]
        ups = [torch.zeros(layer.out_features * rank) for layer in layers.values()]
        return torch.cat([part for pair in zip(downs, ups, strict=True) for part in pair])


def _change(factors: Factors, x: Float[Tensor, "n tokens inputs"]) -> Float[Tensor, "n tokens outputs"]:
    """Rows of a call are ordered by branch, then by image."""
    down, up = (factor.repeat(len(x) // len(factor), 1, 1) for factor in factors)
    return x.to(down) @ down.mT @ up.mT
