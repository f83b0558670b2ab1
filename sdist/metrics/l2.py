"""L2 to the benchmark's own edit. MagicBrush, arXiv 2306.10012."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from ..registry import METRICS
from .base import Encoders, ImageMetric, Sample, Scores, needed, per_image
from .pixels import aligned
from .profile import Profile


@METRICS.register("l2")
@dataclass(frozen=True)
class L2(ImageMetric):
    """Mean squared difference of pixels."""

    label = "L2"
    better = "lower"
    needs = frozenset({"truth"})

    def __call__(self, samples: Sequence[Sample], encoders: Encoders, profile: Profile) -> Scores:
        return per_image(lambda sample: l2(sample.result, needed(sample.truth), profile), samples)


def l2(edit: Image.Image, truth: Image.Image, profile: Profile) -> float:
    """Mean squared difference, without a root, of values in 0..1; sizes as in `aligned`, where the profiles differ."""
    a, b = aligned(edit, truth, profile)
    return float(((a - b) ** 2).mean())
