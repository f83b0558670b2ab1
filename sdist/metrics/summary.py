"""The mean of the scores of many images."""

import numpy as np

from .base import Scores, Summary
from .profile import Profile


def summarize(values: Scores, profile: Profile) -> Summary:
    """The arithmetic mean of the values that are defined, of how many images, and how many of these were left out.

    official: an infinite value, the PSNR of an untouched background, makes the mean infinite. clean: infinite values are left
    out too.
    """
    infinite, undefined = np.isinf(values), np.isnan(values)
    chosen = values[~undefined] if profile == "official" else values[np.isfinite(values)]
    mean = float(chosen.mean()) if len(chosen) else float("nan")
    return Summary(mean, len(values), int(undefined.sum()), int(infinite.sum()))
