"""Which part of an image is edited: what `fit` shows of it, or a square around its mask."""

from math import ceil, floor

from PIL import Image

from ..errors import UserError
from .masks import FLAT

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
Pixels = tuple[int, int, int, int]  # a box of whole pixels

CONTEXT = 2  # side of the square around a mask over the longer side of what is white in it
TINY = 1e-6  # of a pixel: rounding of a box


def shown_box(original: tuple[int, int], goal: tuple[int, int], size: str) -> Box:
    """The part of an image of (width, height) that `fit` shows at a goal."""
    (width, height), (w, h) = original, goal
    if size == "keep":
        x, y = (width - w) // 2, (height - h) // 2
        return float(x), float(y), float(x + w), float(y + h)
    kept_width, kept_height = min(width, height * w / h), min(height, width * h / w)
    left, top = (width - kept_width) / 2, (height - kept_height) / 2
    return left, top, left + kept_width, top + kept_height


def square_around(mask: Image.Image, original: tuple[int, int], native: int, name: str) -> Pixels:
    """A square of the image around what is white in its mask, twice as wide and no smaller than the model's native side.

    It ends where the image does. Raises UserError if nothing is white.
    """
    found = mask.point([255 * (value > FLAT) for value in range(256)]).getbbox()
    if found is None:
        raise UserError(f"mask {name} is empty: there is nothing to crop around; white is where the edit may happen")
    across, down = original[0] / mask.width, original[1] / mask.height
    left, top, right, bottom = found[0] * across, found[1] * down, found[2] * across, found[3] * down
    side = max(native, ceil(CONTEXT * max(right - left, bottom - top)))
    (x, right), (y, bottom) = (
        _span(low, high, side, length) for low, high, length in ((left, right, original[0]), (top, bottom, original[1]))
    )
    return x, y, right, bottom


def _span(low: float, high: float, side: int, length: int) -> tuple[int, int]:
    """So many pixels around the middle of two others, inside of a length."""
    side = min(side, length)
    start = min(max(0, round((low + high - side) / 2)), length - side)
    return start, start + side


def whole_pixels(box: Box) -> Pixels:
    """The pixels that are wholly in a box."""
    left, top, right, bottom = box
    return ceil(left - TINY), ceil(top - TINY), floor(right + TINY), floor(bottom + TINY)
