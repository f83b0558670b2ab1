"""CLIP-AUC: the share of edits that pass a threshold of CLIP-R, over the thresholds. LUSD, arXiv 2503.11054, section 4.2."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..registry import METRICS
from .base import GroupMetric, Scores, Summary
from .passing import thresholds
from .profile import Profile

END = 1.40  # of the range of k that starts at 1


@METRICS.register("clip_auc")
@dataclass(frozen=True)
class ClipAuc(GroupMetric):
    """See `clip_auc`."""

    label = "CLIP-AUC"
    better = "higher"
    reads = ("clip_r",)
    interval = True

    def __call__(self, scores: Mapping[str, Scores], profile: Profile) -> Summary:
        return Summary(clip_auc(scores["clip_r"], profile), len(scores["clip_r"]))


def clip_auc(ratios: Scores, profile: Profile) -> float:
    """The area under the share of edits with CLIP-R > k, from k = 1 to 1.4: 0..0.4, linear in the edits; see `passing`.

    nan if CLIP-R is undefined for all of them. Raises UserError if there is no edit.
    """
    if len(ratios) == 0:
        raise UserError("CLIP-AUC needs at least one edit, got none")
    if np.isnan(ratios).all():
        return float("nan")
    if profile == "clean":
        return float(np.nan_to_num(np.clip(ratios - 1, 0, END - 1)).mean())
    from scipy.integrate import simpson  # of an extra: metrics are listed without it

    k = thresholds(END)
    return float(simpson([(ratios > at).mean() for at in k], x=k))
