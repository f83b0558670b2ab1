"""Mean squared error outside the mask. PIE-Bench, arXiv 2310.01506."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..registry import METRICS
from .background import edit_source_mask
from .base import Encoders, ImageMetric, Sample, Scores, per_image
from .pixels import Mask, Pixels
from .profile import Profile


@METRICS.register("mse")
@dataclass(frozen=True)
class Mse(ImageMetric):
    """See `background_mse`, where the profiles differ."""

    label = "MSE"
    better = "lower"
    needs = frozenset({"mask"})

    def __call__(self, samples: Sequence[Sample], encoders: Encoders, profile: Profile) -> Scores:
        return per_image(lambda sample: background_mse(*edit_source_mask(sample, profile), profile), samples)


def background_mse(edit: Pixels, source: Pixels, mask: Mask, profile: Profile) -> float:
    """Of values in 0..1; nan if the mask leaves no background.

    official: both images are black inside the mask and the mean is over all pixels, so that a larger mask gives a better score.
    clean: the mean is over the background alone.
    """
    if mask.all():
        return float("nan")
    errors = ((edit - source) ** 2)[~mask]
    return float(errors.sum() / (edit.size if profile == "official" else errors.size))
