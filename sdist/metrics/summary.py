"""One number for many pictures, with the count of those that could not enter it."""

from typing import NamedTuple

import numpy as np

from .profile import Profile
from .similarity import Scores


class Summary(NamedTuple):
    mean: float  # nan if no value could enter it
    n: int  # all pictures, whether they entered the mean or not
    undefined: int  # nan: left out of the mean
    infinite: int  # the PSNR of untouched backgrounds


def summarize(values: Scores, profile: Profile) -> Summary:
    """The arithmetic mean of what is defined.

    official: an infinite value makes the mean infinite. clean: infinite values are left out, and counted.
    """
    infinite, undefined = np.isinf(values), np.isnan(values)
    chosen = values[~undefined] if profile == "official" else values[np.isfinite(values)]
    mean = float(chosen.mean()) if len(chosen) else float("nan")
    return Summary(mean, len(values), int(undefined.sum()), int(infinite.sum()))
