"""Editors of flows as one loss: FlowEdit, DVRF and FlowAlign are one update with three scalar schedules.

A flow's velocity is noise minus data, and every model has one (sdist/diffusion.py): these run on Stable Diffusion 1.5 too.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ..diffusion import Latents, PerImage, flow_level, per_image
from ..errors import UserError
from ..prediction import SOURCE, SOURCE_SOURCE, TARGET, Branch, Prediction, Progress
from ..registry import LOSSES
from .base import Loss


@LOSSES.register("velocity_delta")
@dataclass(frozen=True)
class VelocityDelta(Loss):
    """p dV + q R: dV = V(z_s + eta s R, y_tgt) - V(x_s, y_src), R = z - x the edit so far, x the source, s the noise level.

    p = step - pull s and q = step (1 - eta) + pull, where step is s - s', down to the next level s', or 1, which leaves it to the
    optimizer. FlowEdit (Kulikov et al. 2024, arXiv 2412.08629): eta 1, pull 0. DVRF: eta grows from 0 over the run.
    FlowAlign: eta 1, pull 0.01, guidance away from the source prompt.
    """

    target_guidance: float = 13.5
    source_guidance: float = 3.5
    guide_from: Literal["null", "source"] = "null"  # what the target's guidance leads away from
    eta: float = 1.0  # of the edit so far, that is noised along
    progressive: bool = False  # eta times the share of the run that is over
    step: Literal["levels", "constant"] = "levels"
    pull: float = 0.0  # to the source, by what the network takes to be the clean images

    def __post_init__(self) -> None:
        if self.pull < 0 or self.eta < 0:
            raise UserError(f"loss velocity_delta: eta and pull must be at least 0, got {self.eta:g} and {self.pull:g}")

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
        share = progress.step / progress.steps if self.progressive else torch.ones_like(progress.step)
        return self.eta * share.float()

    def gradient(self, p: Prediction) -> Latents:
        s = flow_level(p.draw.alpha, p.draw.sigma)
        size = s - flow_level(p.draw.next_alpha, p.draw.next_sigma) if self.step == "levels" else torch.ones_like(s)
        eta = self.shift(Progress(p.images, p.step, p.steps)).to(s)
        delta, edit = self._target(p) - p.velocity[self.branches[-1]], p.latents - p.edit.source
        return per_image(size - self.pull * s) * delta + per_image(size * (1 - eta) + self.pull) * edit

    def _target(self, p: Prediction) -> Latents:
        if self.guide_from == "null":
            return p.velocity[self.branches[0]]
        target, source = p.velocity[TARGET], p.velocity[SOURCE]
        return source + self.target_guidance * (target - source)
