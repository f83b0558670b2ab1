"""Delta Denoising Score. Hertz et al. 2023, arXiv 2304.07090."""

from dataclasses import dataclass

from ..diffusion import Latents
from ..prediction import SOURCE_SOURCE, TARGET, Branch, Prediction
from ..registry import LOSSES
from .base import Loss, Weighting, weight


@LOSSES.register("dds")
@dataclass(frozen=True)
class DDS(Loss):
    """w(t) (eps_cfg(z_t, y_tgt) - eps_cfg(z_src_t, y_src)), both latents noised by the same draw (eq. 3)."""

    guidance_scale: float = 7.5  # uncond + scale (cond - uncond)
    weighting: Weighting = "uniform"  # w(t)

    @property
    def branches(self) -> tuple[Branch, ...]:
        return TARGET.guided(self.guidance_scale), SOURCE_SOURCE.guided(self.guidance_scale)

    def gradient(self, p: Prediction) -> Latents:
        edit, source = (p.eps[branch] for branch in self.branches)
        return weight(self.weighting, p.draw) * (edit - source)
