"""How far a quantity that was recomputed is from the recorded one."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError


@dataclass(frozen=True)
class Deviation:
    """The largest difference of one quantity, absolute and relative to the quantity's largest magnitude."""

    max_abs: float
    max_rel: float

    def within(self, tolerance: float) -> bool:
        return self.max_rel <= tolerance  # false for nan


def deviation(ours: Tensor, recorded: Tensor, name: str) -> Deviation:
    """Computed on the CPU. A decision that differs counts as 1. Raises UserError if the two cannot be compared."""
    if ours.shape != recorded.shape:
        raise UserError(f"trace: {name} has shape {tuple(recorded.shape)}, ours is {tuple(ours.shape)}")
    ours, recorded = ours.cpu().double(), recorded.cpu().double()
    largest = (ours - recorded).abs().max().item()
    return Deviation(largest, largest / max(recorded.abs().max().item(), torch.finfo(torch.float64).tiny))


def deviations(ours: Mapping[str, Tensor], recorded: Mapping[str, Tensor]) -> dict[str, Deviation]:
    """Of every quantity that was recomputed and recorded."""
    return {name: deviation(value, recorded[name], name) for name, value in ours.items() if name in recorded}
