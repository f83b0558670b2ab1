"""Peak signal-to-noise ratio outside the mask. PIE-Bench, arXiv 2310.01506."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..registry import METRICS
from .background import edit_source_mask
from .base import Encoders, ImageMetric, Sample, Scores, per_image
from .mse import background_mse
from .pixels import Mask, Pixels
from .profile import Profile


@METRICS.register("psnr")
@dataclass(frozen=True)
class Psnr(ImageMetric):
    """See `background_psnr`, where the profiles differ."""

    label = "PSNR"
    better = "higher"
    needs = frozenset({"mask"})

    def __call__(self, samples: Sequence[Sample], encoders: Encoders, profile: Profile) -> Scores:
        return per_image(lambda sample: background_psnr(*edit_source_mask(sample, profile), profile), samples)


def background_psnr(edit: Pixels, source: Pixels, mask: Mask, profile: Profile) -> float:
    """In dB, from `background_mse`, where the profiles differ; inf for a background that is untouched, nan for none."""
    error = background_mse(edit, source, mask, profile)
    return float("inf") if error == 0 else float(-10 * np.log10(error))
