"""Score Distillation Sampling. Poole et al. 2022, DreamFusion, arXiv 2209.14988."""

from dataclasses import dataclass

from ..diffusion import Latents
from ..prediction import TARGET, Branch, Prediction
from ..registry import LOSSES
from .base import Loss, Weighting, weight


@LOSSES.register("sds")
@dataclass(frozen=True)
class SDS(Loss):
    """w(t) (eps_cfg(z_t, y_tgt) - noise), eq. 3 of the paper with the generator's Jacobian equal to one."""

    guidance_scale: float = 7.5  # uncond + scale (cond - uncond)
    weighting: Weighting = "uniform"  # w(t)

    @property
    def branches(self) -> tuple[Branch, ...]:
        return (TARGET.guided(self.guidance_scale),)

    def gradient(self, p: Prediction) -> Latents:
        return weight(self.weighting, p.draw) * (p.eps[self.branches[0]] - p.draw.noise)
