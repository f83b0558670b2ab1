"""Mean squared error and PSNR of what an edit should have left alone (PIE-Bench, arXiv 2310.01506).

official: both pictures are black inside the mask and the mean is over all pixels, so that a larger mask gives a better score.
clean: the mean is over the background alone. Both are nan if the mask leaves no background.
"""

import numpy as np

from .masks import Mask
from .pixels import Pixels
from .profile import Profile


def background_mse(edit: Pixels, source: Pixels, mask: Mask, profile: Profile) -> float:
    """MSE, lower is better, of values in 0..1."""
    if mask.all():
        return float("nan")
    errors = ((edit - source) ** 2)[~mask]
    return float(errors.sum() / (edit.size if profile == "official" else errors.size))


def background_psnr(edit: Pixels, source: Pixels, mask: Mask, profile: Profile) -> float:
    """PSNR in dB, higher is better; inf for a background that is untouched."""
    error = background_mse(edit, source, mask, profile)
    return float("inf") if error == 0 else float(-10 * np.log10(error))
