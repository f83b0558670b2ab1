"""ChordEdit, an edit in one step of a model made for one step. Lu et al. 2026, arXiv 2602.19083."""

from dataclasses import dataclass, replace

import torch

from ..diffusion import Latents, per_image
from ..draws import DrawKey
from ..errors import UserError
from ..prediction import SOURCE, TARGET, Branch, Draw, Outputs, Prediction
from ..registry import LOSSES
from .base import Loss, Probe


@LOSSES.register("chord")
@dataclass(frozen=True)
class Chord(Loss):
    """-(window D(t) + t D(t - window)) / (t + window), with D(t) = clean(z_t, y_tgt) - clean(z_t, y_src); at the end a clean-up.

    The last `cleanup` steps have the gradient z - clean(z_t, y_tgt): a step of length 1, which the method is made for, leaves
    what the target prompt sees. All steps of a run have one noise.
    """

    window: int = 150  # timesteps; the release counts 0.15 of 999
    cleanup: int = 1  # last steps

    def __post_init__(self) -> None:
        if self.window < 0 or self.cleanup < 0:
            raise UserError(f"loss chord: window and cleanup must be at least 0, got {self.window} and {self.cleanup}")

    def check(self, steps: int) -> None:
        if self.cleanup >= steps:
            raise UserError(f"loss chord: cleanup is {self.cleanup}, which leaves none of the run's {steps} steps to edit")

    @property
    def branches(self) -> tuple[Branch, ...]:
        return TARGET, SOURCE

    @property
    def probed(self) -> tuple[Branch, ...]:
        return self.branches

    def noise_key(self, key: DrawKey, steps: int) -> DrawKey:
        return replace(key, step=0, attempt=0)

    def prepare(self, draw: Draw, probe: Probe) -> tuple[Draw, Outputs | None]:
        if (probe.progress.step >= probe.progress.steps - self.cleanup).all():
            return draw, None
        below = probe.at(draw, (draw.t - self.window).clamp(min=0))
        return draw, probe.predict(below, self.probed).outputs

    def gradient(self, p: Prediction) -> Latents:
        rest = p.latents - p.clean[TARGET]
        if p.earlier is None:
            return rest
        t, below = per_image(p.draw.t), p.earlier.clean
        here, there = p.clean[TARGET] - p.clean[SOURCE], below[TARGET] - below[SOURCE]
        change = (self.window * here + t * there) / (t + self.window)
        return torch.where(per_image(p.step < p.steps - self.cleanup), -change, rest)
