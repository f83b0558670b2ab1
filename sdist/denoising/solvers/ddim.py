"""DDIM without noise. Song et al. 2020, arXiv 2010.02502, eq. 12 with sigma = 0."""

from dataclasses import dataclass

from ...diffusion import Estimate, Latents, add_noise
from ...registry import SOLVERS
from ..base import Level, Solver


@SOLVERS.register("ddim")
@dataclass(frozen=True)
class DDIM(Solver):
    """alpha' clean + sigma' eps: what the network says of z, noised to the other level. For a flow this is Euler's step."""

    def step(self, estimate: Estimate, to: Level) -> Latents:
        return add_noise(estimate.clean, estimate.eps, to.alpha, to.sigma)
