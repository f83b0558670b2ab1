"""L1*: the mean L1 of edits that pass a threshold of CLIP-R, over the thresholds. LUSD, arXiv 2503.11054, section 4.2."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..registry import METRICS
from .base import GroupMetric, Scores, Summary
from .passing import passing, passing_area
from .profile import Profile


@METRICS.register("l1_star")
@dataclass(frozen=True)
class L1Star(GroupMetric):
    """See `passing_area`. Without an interval: it would be one of those resamples alone in which edits pass up to the last k."""

    label = "L1*"
    better = "lower"
    reads = ("l1", "clip_r")
    interval = False

    def __call__(self, scores: Mapping[str, Scores], profile: Profile) -> Summary:
        ratios = scores["clip_r"]
        return Summary(passing_area(scores["l1"], ratios, profile), passing(ratios, 1.0))
