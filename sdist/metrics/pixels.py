"""Distances between the pixels of an edit and those of the reference edit."""

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

from .profile import Profile

Pixels = Float[np.ndarray, "h w 3"]


def unit_pixels(image: Image.Image) -> Pixels:
    """RGB in 0..1, float64."""
    return np.asarray(image.convert("RGB"), np.float64) / 255


def l1(edit: Image.Image, reference: Image.Image, profile: Profile) -> float:
    """L1, lower is better: mean absolute difference of values in 0..1 (MagicBrush, arXiv 2306.10012); sizes as in `aligned`."""
    a, b = aligned(edit, reference, profile)
    return float(np.abs(a - b).mean())


def l2(edit: Image.Image, reference: Image.Image, profile: Profile) -> float:
    """L2, lower is better: mean squared difference, without a root, of values in 0..1 (MagicBrush); sizes as in `aligned`."""
    a, b = aligned(edit, reference, profile)
    return float(((a - b) ** 2).mean())


def aligned(edit: Image.Image, reference: Image.Image, profile: Profile) -> tuple[Pixels, Pixels]:
    """Both at one size, bicubic.

    official: the edit is stretched to the reference. clean: the reference is cropped around its centre and scaled to the edit,
    so that no edit pays for the size at which it was made.
    """
    if profile == "official":
        edit = edit.convert("RGB").resize(reference.size, Image.Resampling.BICUBIC)
    else:
        reference = ImageOps.fit(reference.convert("RGB"), edit.size, Image.Resampling.BICUBIC)
    return unit_pixels(edit), unit_pixels(reference)
