"""L1 to the benchmark's own edit. MagicBrush, arXiv 2306.10012."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..registry import METRICS
from .base import Encoders, ImageMetric, Sample, Scores, needed, per_image
from .pixels import aligned
from .profile import Profile


@METRICS.register("l1")
@dataclass(frozen=True)
class L1(ImageMetric):
    """Mean absolute difference of pixels."""

    label = "L1"
    better = "lower"
    needs = frozenset({"truth"})

    def __call__(self, samples: Sequence[Sample], encoders: Encoders, profile: Profile) -> Scores:
        return per_image(lambda sample: l1(sample.result, needed(sample.truth), profile), samples)


def l1(edit: Image.Image, truth: Image.Image, profile: Profile) -> float:
    """Mean absolute difference of values in 0..1; sizes as in `aligned`, where the profiles differ."""
    a, b = aligned(edit, truth, profile)
    return float(np.abs(a - b).mean())
