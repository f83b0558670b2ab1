"""LUSD's areas over the threshold k of CLIP-R (arXiv 2503.11054, section 4.2): how many edits pass it, and how good those are.

An edit passes if CLIP-R > k, so that doing nothing never passes; one with CLIP-R nan passes nowhere and stays in the count.
official: Simpson's rule on k = 1, 1.01, ... as in the released `metrics.py`. clean: the exact area under the same step functions.
"""

import numpy as np
from scipy.integrate import simpson

from ..errors import UserError
from .profile import Profile
from .similarity import Scores

STEP = 0.01  # of k, official
AUC_END = 1.40  # of the range of k that starts at 1, for CLIP-AUC
STARRED_END = 1.22  # the same for L1* and CLIP-I*: the largest k that at least 30 edits of every method in the paper pass


def clip_auc(ratios: Scores, profile: Profile) -> float:
    """CLIP-AUC, higher is better: the area of the share of edits that pass k, from 1 to 1.4; 0..0.4, linear in the edits."""
    if len(ratios) == 0:
        raise UserError("CLIP-AUC needs at least one edit, got none")
    if profile == "clean":
        return float(np.nan_to_num(np.clip(ratios - 1, 0, AUC_END - 1)).mean())
    k = _thresholds(AUC_END)
    return float(simpson([(ratios > at).mean() for at in k], x=k))


def starred(values: Scores, ratios: Scores, profile: Profile) -> float:
    """L1* (lower is better) or CLIP-I* (higher): the area of the mean of `values` over edits that pass k, from 1 to 1.22.

    Divide it by 0.22 for the mean over k. nan if no edit passes some k, or if an edit that passes has the value nan.
    """
    if len(values) != len(ratios):
        raise UserError(f"L1* and CLIP-I* need a value and a ratio for each edit, got {len(values)} and {len(ratios)}")
    if profile == "official":
        k = _thresholds(STARRED_END)
        return float(simpson([_passing_mean(values, ratios, at) for at in k], x=k))
    inside = ratios[(ratios > 1) & (ratios < STARRED_END)]
    edges = np.unique([1.0, *inside, STARRED_END])
    return float(sum(width * _passing_mean(values, ratios, at) for at, width in zip(edges[:-1], np.diff(edges), strict=True)))


def passing(ratios: Scores, k: float) -> int:
    """How many edits pass k: what a starred area rests on at its end."""
    return int((ratios > k).sum())


def _thresholds(end: float) -> Scores:
    return 1 + STEP * np.arange(round((end - 1) / STEP) + 1)


def _passing_mean(values: Scores, ratios: Scores, k: float) -> float:
    chosen = values[ratios > k]
    return float(chosen.mean()) if len(chosen) else float("nan")
