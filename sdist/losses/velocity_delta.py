"""Editors of flows as one loss: FlowEdit, DVRF and FlowAlign are one update with three scalar schedules.

A flow's velocity is noise minus data, and every model has one (sdist/diffusion.py): these run on Stable Diffusion 1.5 too.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from ..diffusion import Latents, PerImage, flow_level, per_image
from ..draws import DrawKey
from ..errors import UserError
from ..prediction import SOURCE, SOURCE_SOURCE, TARGET, Branch, Prediction, Progress
from ..registry import LOSSES
from .base import Loss


@LOSSES.register("velocity_delta")
@dataclass(frozen=True)
class VelocityDelta(Loss):
    """p dV + q R: dV = V(z_s + eta s R, y_tgt) - V(x_s, y_src), R = z - x the edit so far, x the source, s the noise level.

    p = step - pull s and q = step (1 - eta) + pull, where step is s - s', down to the next level s', or 1, which leaves it to the
    optimizer. FlowEdit (Kulikov et al. 2024, arXiv 2412.08629): eta 1, pull 0; its n_avg is a method's `noises`, its n_min is
    `sampled`. DVRF: eta grows from 0 over the run. FlowAlign: eta 1, pull 0.01, guidance away from the source prompt.
    """

    target_guidance: float = 13.5
    source_guidance: float = 3.5
    guide_from: Literal["null", "source"] = "null"  # what the target's guidance leads away from
    eta: float = 1.0  # of the edit so far, that is noised along
    eta_start: float | None = None  # what eta is at the run's first step, from where it grows evenly; null: eta
    sampled: int = 0  # last steps that only sample the target: one noise, the source's true velocity
    step: Literal["levels", "constant"] = "levels"
    pull: float = 0.0  # to the source, by what the network takes to be the clean images

    def __post_init__(self) -> None:
        for name in ("pull", "eta", "eta_start", "sampled"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise UserError(f"loss velocity_delta: {name} must be at least 0, got {value:g}")
        if self.sampled and (self.step != "levels" or self.pull or (self.eta, self.eta_start) != (1, None)):
            raise UserError("loss velocity_delta: sampled steps need step: levels, eta 1 and no pull, as in FlowEdit")

    def check(self, steps: int) -> None:
        if self.sampled > steps:
            raise UserError(f"loss velocity_delta: sampled is {self.sampled}, the run has {steps} steps")

    @property
    def branches(self) -> tuple[Branch, ...]:
        source = SOURCE_SOURCE.guided(self.source_guidance)
        if self.guide_from == "source":
            return TARGET, SOURCE, source
        return TARGET.guided(self.target_guidance), source

    @property
    def walks(self) -> bool:
        return self.step == "levels"

    def shift(self, progress: Progress) -> PerImage:
        start = self.eta if self.eta_start is None else self.eta_start
        return start + (self.eta - start) * progress.step / progress.steps

    def noise_key(self, key: DrawKey, steps: int) -> DrawKey:
        first = steps - self.sampled
        return key if key.step < first else replace(key, step=first, attempt=0, sample=0)

    def gradient(self, p: Prediction) -> Latents:
        s = flow_level(p.draw.alpha, p.draw.sigma)
        size = s - flow_level(p.draw.next_alpha, p.draw.next_sigma) if self.step == "levels" else torch.ones_like(s)
        eta = self.shift(Progress(p.images, p.step, p.steps)).to(s)
        delta, edit = self._target(p) - self._source(p), p.latents - p.edit.source
        return per_image(size - self.pull * s) * delta + per_image(size * (1 - eta) + self.pull) * edit

    def _target(self, p: Prediction) -> Latents:
        if self.guide_from == "null":
            return p.velocity[self.branches[0]]
        target, source = p.velocity[TARGET], p.velocity[SOURCE]
        return source + self.target_guidance * (target - source)

    def _source(self, p: Prediction) -> Latents:
        """In sampled steps noise - x: then z + s (noise - x), what the network sees, takes an Euler step of the target."""
        source = p.velocity[self.branches[-1]]
        if not self.sampled:
            return source
        return torch.where(per_image(p.step < p.steps - self.sampled), source, p.draw.noise - p.edit.source)
