"""Delta Denoising Score. Hertz et al. 2023, arXiv 2304.07090."""

from dataclasses import dataclass

from ..diffusion import Latents, cfg
from ..prediction import NULL, SOURCE_NULL, SOURCE_SOURCE, TARGET, Branch, Prediction
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
        conditional = (TARGET, SOURCE_SOURCE)
        return conditional if self.guidance_scale == 1 else (*conditional, NULL, SOURCE_NULL)

    def gradient(self, p: Prediction) -> Latents:
        if self.guidance_scale == 1:
            return weight(self.weighting, p.draw) * (p.eps[TARGET] - p.eps[SOURCE_SOURCE])
        edit = cfg(p.eps[NULL], p.eps[TARGET], self.guidance_scale)
        source = cfg(p.eps[SOURCE_NULL], p.eps[SOURCE_SOURCE], self.guidance_scale)
        return weight(self.weighting, p.draw) * (edit - source)
