"""Pixels of images, masks over them, and two images at one size."""

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageOps

from .profile import Profile

Pixels = Float[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]  # True where the edit may change the image


def unit_pixels(image: Image.Image) -> Pixels:
    """RGB in 0..1, float64."""
    return np.asarray(image.convert("RGB"), np.float64) / 255


def aligned(edit: Image.Image, truth: Image.Image, profile: Profile) -> tuple[Pixels, Pixels]:
    """Both at one size, bicubic.

    official: the edit is stretched to the benchmark's own edit. clean: the latter is cropped around its centre and scaled to the
    edit, so that no edit pays for the size at which it was made.
    """
    if profile == "official":
        edit = edit.convert("RGB").resize(truth.size, Image.Resampling.BICUBIC)
    else:
        truth = ImageOps.fit(truth.convert("RGB"), edit.size, Image.Resampling.BICUBIC)
    return unit_pixels(edit), unit_pixels(truth)
