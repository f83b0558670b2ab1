"""Stable Score Distillation. Zhu et al. 2025, arXiv 2507.09168."""

from dataclasses import dataclass

from ..diffusion import Latents, per_image
from ..prediction import NULL, SOURCE, SOURCE_NULL, TARGET, Branch, Prediction
from ..registry import LOSSES
from .base import Loss

TIMESTEPS = 1000  # of the models that it was published for


@LOSSES.register("ssd")
@dataclass(frozen=True)
class SSD(Loss):
    """source (S - S0) + delta (T - S) + target (T - U) + identity exp(t / 1000) (z_t - z_src_t), as released.

    T, S, U are the noises predicted in z_t for the target, source and null prompt, S0 that in z_src_t for the null prompt. The
    release writes the first two factors as guidance of 2 and 7.5 and halves them.
    """

    source: float = 1.0
    delta: float = 3.75
    target: float = 5.5
    identity: float = 0.075

    @property
    def branches(self) -> tuple[Branch, ...]:
        return TARGET, SOURCE, NULL, SOURCE_NULL

    def gradient(self, p: Prediction) -> Latents:
        target, source, null, before = (p.eps[branch] for branch in self.branches)
        pull = self.identity * (p.draw.t.to(p.draw.alpha) / TIMESTEPS).exp() * p.draw.alpha  # both latents have one noise
        score = self.source * (source - before) + self.delta * (target - source) + self.target * (target - null)
        return score + per_image(pull) * (p.latents - p.edit.source)
