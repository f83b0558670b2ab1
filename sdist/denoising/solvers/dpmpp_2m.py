"""DPM-Solver++(2M), its ODE and its SDE form. Lu et al. 2022, arXiv 2211.01095, algorithm 2 and appendix on SDEs."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ...diffusion import Estimate, Latents, PerImage, per_image
from ...errors import UserError
from ...registry import SOLVERS
from ..base import Level, Solver, StepNoise


@SOLVERS.register("dpmpp_2m")
@dataclass(frozen=True)
class DPMSolverPP2M(Solver):
    """Second order, midpoint, from the estimates of this step and of the one before; the ODE's form, or the SDE's where noise is
    added. Timesteps are equally spaced from the model's last; the step to the image itself is of the first order.

    With h the fall of log(sigma / alpha) and D = clean + h / (2 h_before) (clean - clean_before):
    ODE  sigma' / sigma z + alpha' (1 - e^-h) D
    SDE  sigma' / sigma e^-h z + alpha' (1 - e^-2h) D + sigma' sqrt(1 - e^-2h) noise
    """

    clean_end: ClassVar[bool] = True

    def timesteps(self, steps: int, last: int) -> list[int]:
        if not 1 <= steps <= last:
            raise UserError(f"steps is a number from 1 to {last}, got {steps}")
        return [round(last * (steps - k) / steps) for k in range(steps + 1)]

    def step(self, estimate: Estimate, to: Level, added: StepNoise | None = None, before: Estimate | None = None) -> Latents:
        shrink = _shrink(estimate, to)
        clean = estimate.clean if before is None else _ahead(estimate, before, to)
        scale = per_image(to.sigma / estimate.sigma)
        ode = scale * estimate.z_t + per_image(to.alpha * (1 - shrink)) * clean
        if added is None:
            return ode
        deterministic = scale * per_image(shrink) * estimate.z_t + per_image(to.alpha * (1 - shrink**2)) * clean
        sde = deterministic + per_image(self.deviation(estimate, to)) * added.noise
        return torch.lerp(ode, sde, added.where.to(ode).expand_as(ode))

    def deviation(self, estimate: Estimate, to: Level) -> PerImage:
        """sigma' sqrt(1 - e^-2h)."""
        return to.sigma * (1 - _shrink(estimate, to) ** 2).sqrt()


def _shrink(estimate: Estimate, to: Level) -> PerImage:
    """e^-h: 0 for a step to the image itself."""
    return (to.sigma / to.alpha) * (estimate.alpha / estimate.sigma)


def _ahead(estimate: Estimate, before: Estimate, to: Level) -> Latents:
    """The clean image in the middle of the step, as it goes on from the step before; the estimate's own where there is no end."""
    h, h_before = -_shrink(estimate, to).log(), (before.sigma / before.alpha).log() - (estimate.sigma / estimate.alpha).log()
    weight = torch.where(h.isfinite(), h / (2 * h_before), 0)
    return estimate.clean + per_image(weight) * (estimate.clean - before.clean)
