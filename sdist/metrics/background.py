"""What an edit should have left alone: all that is outside the mask. PIE-Bench, arXiv 2310.01506."""

from ..errors import UserError
from .base import Sample, needed
from .pixels import Mask, Pixels, unit_pixels


def edit_source_mask(sample: Sample) -> tuple[Pixels, Pixels, Mask]:
    """The pixels of edit and source, and the mask of what may change. Raises UserError if they have different sizes."""
    check_one_size(sample)
    return unit_pixels(sample.result), unit_pixels(sample.source), needed(sample.mask)


def check_one_size(sample: Sample) -> None:
    """Raises UserError if edit, source and mask have different sizes."""
    sizes = {sample.result.size, sample.source.size, needed(sample.mask).shape[::-1]}
    if len(sizes) > 1:
        shown = " and ".join(f"{w} x {h}" for w, h in sorted(sizes))
        raise UserError(f"edit, source and mask must have one size, got {shown}")
