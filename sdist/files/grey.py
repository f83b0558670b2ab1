"""More than 8 bits per channel: which value of a grey is white, and which is transparent."""

import numpy as np
from PIL import Image

from ..errors import UserError

WHITES = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits


def is_deep(image: Image.Image) -> bool:
    """Whether it is 16-bit, 32-bit or float grey, which Pillow's own conversion would cut at 255."""
    return image.mode.startswith("I") or image.mode == "F"


def to_8_bits(image: Image.Image, what: str) -> tuple[Image.Image, list[str]]:
    """An "L" image of a deep one, "LA" where one of its values is transparent, and what was taken as white.

    Raises UserError for values that no rule covers. White is of whole numbers the largest value of as few bits as hold all, of 8,
    10, 12, 14 and 16, of floats 1.
    """
    values = np.asarray(image, np.float64)
    if not np.isfinite(values).all():
        raise UserError(f"{what} has values that are not finite (NaN or infinite); fill them, and save it in 0..1 or in 8 bits")
    low, high = values.min(), values.max()
    tops = (1,) if image.mode == "F" else WHITES
    top = next((white for white in tops if high <= white + 1e-6), None)
    if top is None or low < -1e-6:
        need = f"{image.mode} files need 0..{tops[-1]}"
        raise UserError(f"{what} has values {low:g}..{high:g}; {need}: scale it, or save it in 8 bits")
    scaled = Image.fromarray((values.clip(0, top) * 255 / top).round().astype(np.uint8))
    if (transparent := image.info.get("transparency")) is not None:
        scaled.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return scaled, [f"grey of {image.mode} values {low:g}..{high:g}: {top} is white"]


def plain_16_bits(image: Image.Image, what: str) -> Image.Image:
    """As run cards without a note on reading were made: 65535 is white, or 1 of floats."""
    values, top = np.asarray(image, np.float64), 1.0 if image.mode == "F" else 65535.0
    if values.min() < 0 or values.max() > top:
        raise UserError(f"{what} has values {values.min():g}..{values.max():g}; {image.mode} files need 0..{top:g}")
    return Image.fromarray((values * 255 / top).round().astype(np.uint8))


def transparency_in_8_bits(image: Image.Image) -> None:
    """The transparent colour of a PNG of 16 bits per channel as that of the 8 bits that Pillow reads of each."""
    colour = image.info.get("transparency")
    if isinstance(colour, tuple) and max(colour) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in colour)
