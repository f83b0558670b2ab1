"""Euler's method with fresh noise at every step, as in k-diffusion and diffusers; after Karras et al. 2022, arXiv 2206.00364."""

from dataclasses import dataclass
from typing import ClassVar

from ...diffusion import Estimate, Latents, PerImage
from ...registry import SOLVERS
from ..base import Level, Solver, StepNoise
from .ddim import DDIM


@SOLVERS.register("euler_ancestral")
@dataclass(frozen=True)
class EulerAncestral(Solver):
    """DDIM's step with eta 1 and noise everywhere: alpha' clean + sigma' (r eps + sqrt(1 - r^2) noise).

    In the terms of k-diffusion, where z / alpha has the noise level s = sigma / alpha, and r = s' / s: a step of Euler down to
    s'^2 / s, then noise up to s'.
    """

    stochastic: ClassVar[bool] = True

    def step(self, estimate: Estimate, to: Level, added: StepNoise | None = None, before: Estimate | None = None) -> Latents:
        return DDIM().step(estimate, to, added)

    def deviation(self, estimate: Estimate, to: Level) -> PerImage:
        return DDIM().deviation(estimate, to)
