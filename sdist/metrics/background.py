"""What an edit should have left alone: all that is outside the mask. PIE-Bench, arXiv 2310.01506."""

from dataclasses import replace

import numpy as np
from PIL import Image, ImageOps

from ..errors import UserError
from .base import Sample, needed
from .pixels import Mask, Pixels, unit_pixels
from .profile import Profile

REMEDY = "resize the results to their sources, or use --profile clean, which brings all to the size of the edit"


def edit_source_mask(sample: Sample, profile: Profile) -> tuple[Pixels, Pixels, Mask]:
    """The pixels of edit and source, and the mask of what may change, at one size; see `at_one_size`."""
    sample = at_one_size(sample, profile)
    return unit_pixels(sample.result), unit_pixels(sample.source), needed(sample.mask)


def at_one_size(sample: Sample, profile: Profile) -> Sample:
    """The sample with edit, source and mask at one size.

    official: UserError if they are not, since the published code would crop or stop. clean: source and mask are cropped around
    their centre and scaled to the edit, so that no edit pays for the size at which it was made; a pixel is masked if any part is.
    """
    if profile == "official":
        check_one_size(sample)
    size, mask = sample.result.size, needed(sample.mask)
    if size == sample.source.size == mask.shape[::-1]:
        return sample
    source = ImageOps.fit(sample.source.convert("RGB"), size, Image.Resampling.BICUBIC)
    covered = ImageOps.fit(Image.fromarray(mask.astype(np.float32)), size, Image.Resampling.BOX)
    return replace(sample, source=source, mask=np.asarray(covered) > 0)


def check_one_size(sample: Sample) -> None:
    """Raises UserError if edit, source and mask have different sizes."""
    sizes = {"the edit": sample.result.size, "its source": sample.source.size, "its mask": needed(sample.mask).shape[::-1]}
    if len({*sizes.values()}) > 1:
        shown = ", ".join(f"{name} has {w} x {h}" for name, (w, h) in sizes.items())
        raise UserError(f"{shown}: the published code needs one size; {REMEDY}")
