"""Posterior Distillation Sampling. Koo et al. 2024, arXiv 2311.13831."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..diffusion import Latents, PerImage, per_image
from ..errors import UserError
from ..prediction import Branch, Draw, Prediction
from ..registry import LOSSES
from .base import Loss
from .dds import DDS


@LOSSES.register("pds")
@dataclass(frozen=True)
class PDS(Loss):
    """chi(t) DDS + psi(t) (z - z_src): the difference of the noises that lead edit and source one level down their posteriors.

    Both factors follow from the schedule (docs/methods.md). Where levels are one timestep apart psi is 0, which leaves DDS: so
    `gap` decides how strong the pull to the source is; 2 is the release's, whose schedule has every second timestep.
    """

    guidance_scale: float = 7.5  # uncond + scale (cond - uncond)
    gap: int = 2  # timesteps from a level to the next lower one

    def __post_init__(self) -> None:
        if self.gap < 1:
            raise UserError(f"loss pds: gap must be at least 1, got {self.gap}")

    @property
    def branches(self) -> tuple[Branch, ...]:
        return self._dds.branches

    @property
    def _dds(self) -> DDS:
        return DDS(self.guidance_scale)

    def gradient(self, p: Prediction) -> Latents:
        psi, chi = self.coefficients(p.draw)
        return chi * self._dds.gradient(p) + psi * (p.latents - p.edit.source)

    def coefficients(self, draw: Draw) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
        """psi and chi of each image."""
        here, below = _alpha_bar(draw.alpha, draw.sigma), _alpha_bar(draw.next_alpha, draw.next_sigma)
        alpha = (here / below) ** (1 / self.gap)  # of one timestep
        beta = 1 - alpha
        clean = below.sqrt() * beta / (1 - here)  # the posterior's mean is clean z + noisy z_t
        noisy = alpha.sqrt() * (1 - below) / (1 - here)
        sd = ((1 - below) / (1 - here) * beta).sqrt()
        psi = (below.sqrt() - clean - noisy * here.sqrt()) / sd
        chi = clean * ((1 - here) / here).sqrt() / sd
        return per_image(psi), per_image(chi)


def _alpha_bar(alpha: PerImage, sigma: PerImage) -> PerImage:
    """Of the diffusion with the same ratio of signal and noise, whatever the model's own scale."""
    return alpha**2 / (alpha**2 + sigma**2)
