"""Edits that pass a threshold k of CLIP-R, and areas over k. LUSD, arXiv 2503.11054, section 4.2.

An edit passes if CLIP-R > k, so that doing nothing never passes; one with CLIP-R nan passes nowhere and stays in the count.
official: Simpson's rule on k = 1, 1.01, ... as in the released `metrics.py`. clean: the exact area under the same step functions.
"""

import numpy as np

from ..errors import UserError
from .base import Scores
from .profile import Profile

STEP = 0.01  # of k, official
STARRED_END = 1.22  # of the range of k that starts at 1: the largest k that at least 30 edits of every method in the paper pass


def passing(ratios: Scores, k: float) -> int:
    """How many edits pass k."""
    return int((ratios > k).sum())


def passing_area(values: Scores, ratios: Scores, profile: Profile) -> float:
    """L1* and CLIP-I*: the area under the mean of `values` over edits that pass k, from k = 1 to 1.22.

    Divide it by 0.22 for the mean over k. nan if no edit passes some k, or if an edit that passes has the value nan.
    Raises UserError unless there are as many values as ratios.
    """
    if len(values) != len(ratios):
        raise UserError(f"L1* and CLIP-I* need a value and a ratio for each edit, got {len(values)} and {len(ratios)}")
    if profile == "official":
        from scipy.integrate import simpson  # of an extra: metrics are listed without it

        k = thresholds(STARRED_END)
        return float(simpson([_passing_mean(values, ratios, at) for at in k], x=k))
    inside = ratios[(ratios > 1) & (ratios < STARRED_END)]
    edges = np.unique([1.0, *inside, STARRED_END])
    return float(sum(width * _passing_mean(values, ratios, at) for at, width in zip(edges[:-1], np.diff(edges), strict=True)))


def thresholds(end: float) -> Scores:
    """k = 1, 1.01, ... to the end."""
    return 1 + STEP * np.arange(round((end - 1) / STEP) + 1)


def _passing_mean(values: Scores, ratios: Scores, k: float) -> float:
    chosen = values[ratios > k]
    return float(chosen.mean()) if len(chosen) else float("nan")
