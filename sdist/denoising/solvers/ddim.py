"""DDIM. Song et al. 2020, arXiv 2010.02502, eq. 12; with noise at some positions ViMAEdit, arXiv 2410.10496, eq. 11 and 12."""

from dataclasses import dataclass

from ...diffusion import Estimate, Latents, PerImage, add_noise, per_image
from ...errors import UserError
from ...registry import SOLVERS
from ..base import Level, Solver, StepNoise


@SOLVERS.register("ddim")
@dataclass(frozen=True)
class DDIM(Solver):
    """alpha' clean + sigma' eps: what the network says of z, noised to the other level. For a flow this is Euler's step.

    Where noise is added: alpha' clean + sqrt(sigma'^2 - S^2) eps + S noise, S the deviation at each position.
    """

    eta: float = 1.0  # part of DDPM's deviation, where noise is added at all

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta is within 0..1, from no noise to DDPM's, got {self.eta}")

    def step(self, estimate: Estimate, to: Level, added: StepNoise | None = None, before: Estimate | None = None) -> Latents:
        if added is None:
            return add_noise(estimate.clean, estimate.eps, to.alpha, to.sigma)
        deviation = per_image(self.deviation(estimate, to)) * added.where
        rest = (per_image(to.sigma) ** 2 - deviation**2).clamp(min=0).sqrt()
        return per_image(to.alpha) * estimate.clean + rest * estimate.eps + deviation * added.noise

    def deviation(self, estimate: Estimate, to: Level) -> PerImage:
        """eta sigma' / sigma sqrt(sigma^2 - (alpha sigma' / alpha')^2): at eta 1 that of z' given z_t and clean (DDPM)."""
        rest = (estimate.sigma**2 - (estimate.alpha * to.sigma / to.alpha) ** 2).clamp(min=0)
        return self.eta * to.sigma / estimate.sigma * rest.sqrt()
