"""The distance to the benchmark's own edit, the root of L2 (MagicBrush, arXiv 2306.10012), as a share of the source's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageOps

from ..registry import METRICS
from .base import Encoders, ImageMetric, Sample, Scores, needed, per_image
from .l2 import l2
from .profile import Profile


@METRICS.register("truth_distance")
@dataclass(frozen=True)
class TruthDistance(ImageMetric):
    """See `truth_distance`, where the profiles differ."""

    label = "Truth distance"
    better = "lower"
    needs = frozenset({"truth"})

    def __call__(self, samples: Sequence[Sample], encoders: Encoders, profile: Profile) -> Scores:
        return per_image(lambda s: truth_distance(s.result, s.source, needed(s.truth), profile), samples)


def truth_distance(edit: Image.Image, source: Image.Image, truth: Image.Image, profile: Profile) -> float:
    """|edit - truth| / |source - truth| over all pixels, Euclidean: 0 is perfect, 1 what doing nothing scores.

    nan if source and truth are the same. Sizes as in `aligned`, the source as the edit, where the profiles differ.
    """
    if profile == "clean":
        source = ImageOps.fit(source.convert("RGB"), edit.size, Image.Resampling.BICUBIC)
    nothing = l2(source, truth, profile)
    return math.sqrt(l2(edit, truth, profile) / nothing) if nothing else math.nan
