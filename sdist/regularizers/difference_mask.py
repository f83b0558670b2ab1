"""A mask from what two prompts make the network predict; it reads no attention, so it works on every network.

DiffEdit, Couairon et al. 2023, arXiv 2210.11427, step 1; UniEdit-Flow, Jiao et al. 2025, arXiv 2504.13109.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ..prediction import SOURCE, TARGET, Branch, Prediction
from ..registry import REGULARIZERS
from .mask import AveragedMask, Mask, unit_range

OUTLIER = 3.0  # times the mean of a map: larger values count as that


@REGULARIZERS.register("difference_mask")
@dataclass(frozen=True, kw_only=True)
class DifferenceMask(AveragedMask):
    """M = |eps(z_t, y_tgt) - eps(z_t, y_src)| averaged over channels, without outliers, scaled to 0..1 (DiffEdit).

    With form "signed" the difference keeps its sign (UniEdit-Flow). Noise and velocity differ by a factor per image, which the
    scaling removes. The moving average over accepted draws stands for DiffEdit's average over ten noises.
    """

    form: Literal["absolute", "signed"] = "absolute"

    @property
    def branches(self) -> tuple[Branch, ...]:
        return TARGET, SOURCE

    def newest(self, p: Prediction) -> Mask:
        difference = p.eps[TARGET] - p.eps[SOURCE]
        if self.form == "signed":
            return unit_range(difference.mean(1, keepdim=True))
        size = difference.abs().mean(1, keepdim=True)
        return unit_range(torch.minimum(size, OUTLIER * size.mean((1, 2, 3), keepdim=True)))
