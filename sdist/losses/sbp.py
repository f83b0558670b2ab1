"""Score distillation as a bridge. McAllister et al. 2024, arXiv 2406.09417; the base term of LUSD."""

from dataclasses import dataclass

from ..diffusion import Latents
from ..prediction import SOURCE, TARGET, Branch, Prediction
from ..registry import LOSSES
from .base import Loss, Weighting, weight


@LOSSES.register("sbp")
@dataclass(frozen=True)
class SBP(Loss):
    """w(t) scale (eps(z_t, y_tgt) - eps(z_t, y_src)): the second stage of the bridge; scale 1 is LUSD's term."""

    scale: float = 1.0  # on the difference; there is no null prompt in it
    weighting: Weighting = "uniform"  # w(t)

    @property
    def branches(self) -> tuple[Branch, ...]:
        return TARGET, SOURCE

    def gradient(self, p: Prediction) -> Latents:
        return weight(self.weighting, p.draw) * (self.scale * (p.eps[TARGET] - p.eps[SOURCE]))
