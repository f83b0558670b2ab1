"""A loss written in yaml: a row of coefficients over predictions, noise and displacement."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import inf
from typing import Any

import torch

from ..diffusion import Latents, per_image
from ..errors import UserError
from ..prediction import Branch, Draw, Prediction
from ..registry import LOSSES
from .base import Loss, Weighting, weight

Coefficient = Any  # a number, or a mapping {from timestep: number}; omegaconf has no union of the two
TERMS = {
    f"{latent}_{prompt}": Branch(latent, prompt)
    for latent in ("edit", "source")
    for prompt in ("target", "source", "null", "negative")
}


@LOSSES.register("combination")
@dataclass(frozen=True)
class Combination(Loss):
    """w(t) (sum of coefficient x term). SDS, SBP, DDS, CSD and NFSD are rows of it (docs/methods.md lists them).

    A coefficient is a number, or steps over the timestep: {0: 0.0, 200: -1.0} is 0 below t = 200 and -1 from there on.
    """

    edit_target: Coefficient = 0.0  # eps(z_t, y_tgt)
    edit_source: Coefficient = 0.0  # eps(z_t, y_src)
    edit_null: Coefficient = 0.0  # eps(z_t, null prompt)
    edit_negative: Coefficient = 0.0  # eps(z_t, negative prompt)
    source_target: Coefficient = 0.0  # the same four for the noised source latents
    source_source: Coefficient = 0.0
    source_null: Coefficient = 0.0
    source_negative: Coefficient = 0.0
    noise: Coefficient = 0.0  # the drawn noise
    displacement: Coefficient = 0.0  # z - z_src
    weighting: Weighting = "uniform"  # w(t)

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "weighting":
                object.__setattr__(self, field.name, _checked(field.name, getattr(self, field.name)))
        if not any(self._used(name) for name in (*TERMS, "noise", "displacement")):
            raise UserError("loss combination: every coefficient is 0; give at least one")

    @property
    def branches(self) -> tuple[Branch, ...]:
        return tuple(branch for name, branch in TERMS.items() if self._used(name)) or (Branch("edit", "target"),)

    def gradient(self, p: Prediction) -> Latents:
        terms = {name: p.eps[branch] for name, branch in TERMS.items() if self._used(name)}
        terms |= {"noise": p.draw.noise, "displacement": p.latents - p.edit.source}
        rows = [_values(getattr(self, name), p.draw) * term for name, term in terms.items() if self._used(name)]
        return weight(self.weighting, p.draw) * sum(rows[1:], rows[0])

    def _used(self, name: str) -> bool:
        coefficient = getattr(self, name)
        return any(coefficient.values()) if isinstance(coefficient, Mapping) else bool(coefficient)


def _checked(name: str, coefficient: Coefficient) -> Coefficient:
    """The coefficient, with timesteps as numbers: json keeps them as text."""
    steps = coefficient if isinstance(coefficient, Mapping) else {0: coefficient}
    steps = {int(k) if str(k).isdecimal() else k: v for k, v in steps.items()}
    fine = all(isinstance(k, int) and isinstance(v, int | float) and abs(v) < inf for k, v in steps.items())
    if not fine or min(steps, default=None) != 0:
        raise UserError(
            f"loss combination: {name} must be a finite number or a mapping {{timestep: number}} that starts at 0, "
            f"got {coefficient!r}"
        )
    return steps if isinstance(coefficient, Mapping) else coefficient


def _values(coefficient: Coefficient, draw: Draw) -> torch.Tensor:
    """The coefficient at each image's timestep, (b, 1, 1, 1)."""
    steps = coefficient if isinstance(coefficient, Mapping) else {0: coefficient}
    starts = torch.tensor(sorted(steps), device=draw.t.device)
    values = torch.tensor([float(steps[s]) for s in sorted(steps)], device=draw.t.device, dtype=draw.noise.dtype)
    return per_image(values[torch.searchsorted(starts, draw.t, right=True) - 1])
