"""Masks in files: where the edit may happen, by alpha or by luminance, whatever numbers stand for "here"."""

from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UserError
from .grey import is_deep, to_8_bits
from .images import LoadedImage, read_image
from .in_memory import called
from .opening import first_frame

FLAT = 16  # of 255: what differs by less is one grey, or one alpha
COLOURED = 48  # of 255: a colour whose channels differ by less is a grey
LABELS = 63  # whole numbers up to here are labels, not greys
SLACK = 0.01  # part by which the shapes of a mask and its image may differ, beside one pixel


def read_mask(path: Path, plain: bool = False) -> LoadedImage:
    """A grey image, white where the edit may happen; its only note says by what rule. Raises UserError.

    `plain`: by luminance on white, as run cards without a note on reading were made. The last mask is kept, since a request is
    asked for its mask when it is checked, cut out, read and put together.
    """
    with suppress(OSError):  # which reading says
        written = path.stat()
        return _read_mask(path, plain, (written.st_mtime_ns, written.st_size))
    return _read_mask(path, plain, ())


@lru_cache(maxsize=1)
def _read_mask(path: Path, plain: bool, written: tuple[int, ...]) -> LoadedImage:
    if plain:
        return LoadedImage(read_image(path, plain=True).image.convert("L"))
    image, notes, faults = first_frame(path, "mask")
    grey, rule = _grey(image, f"mask {path}")
    return LoadedImage(grey, [*notes, rule], faults)


def coverage(mask: Image.Image) -> str:
    """What part of the image may change."""
    part = np.asarray(mask, float).mean() / 255
    return f"{part:.0%} of the image may change" if part > 0.005 or not part else "less than 1% of the image may change"


def check_allows(mask: Image.Image, name: str) -> None:
    """Raises UserError for a mask that is black everywhere."""
    if not np.asarray(mask).any():
        raise UserError(f"{called(name, 'mask')} is empty: nothing in the image may change; white is where the edit may happen")


def check_shape(mask: tuple[int, int], image: tuple[int, int], mask_name: str, image_name: str) -> None:
    """Raises UserError unless both (width, height), upright, have one aspect."""
    if _is_like(mask, image) and (mask == image or mask != image[::-1]):
        return
    hint = "turn it by 90 degrees" if _is_like(mask, image[::-1]) else "give one of the image's shape"
    (w, h), (width, height) = mask, image
    which, its = called(mask_name, "mask"), called(image_name, "image")
    raise UserError(f"{which} is {w} x {h}, its {its} {width} x {height}, both upright: {hint}")


def _is_like(mask: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether the aspects are one, up to a pixel of the mask or SLACK."""
    (w, h), (width, height) = mask, image
    return abs(w * height - h * width) <= max(SLACK * w * height, width, height)


def _grey(image: Image.Image, what: str) -> tuple[Image.Image, str]:
    """The mask as an "L" image, and the rule that made it one."""
    if is_deep(image) and "transparency" in image.info:
        image, _ = to_8_bits(image, what)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        if np.ptp(rgba[..., 3]) > FLAT:
            return _by_alpha(rgba, what)
        if rgba[..., 3].max() <= FLAT and np.ptp(rgba[..., :3].reshape(-1, 3), axis=0).max() <= FLAT:
            return Image.new("L", image.size, 0), "transparent everywhere"
        image = Image.fromarray(rgba[..., :3])
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _by_numbers(np.asarray(image, np.float64), what)
    if image.mode in ("1", "L"):
        return _by_numbers(np.asarray(image.convert("L"), np.float64), what)
    rgb = np.asarray(image.convert("RGB"))
    if np.ptp(rgb.astype(int), axis=-1).max() < COLOURED:
        return _by_numbers(np.asarray(Image.fromarray(rgb).convert("L"), np.float64), what)
    return _by_colours(rgb, what)


def _by_alpha(rgba: np.ndarray, what: str) -> tuple[Image.Image, str]:
    """One colour on transparent is a mask by its alpha; greys on transparent are one by luminance, where they can be seen."""
    alpha = rgba[..., 3]
    seen = rgba[alpha > alpha.max() / 2, :3].astype(int)
    if (seen.max(0) - seen.min(0)).max() < FLAT:
        return Image.fromarray(alpha.copy()), "by alpha: what is painted may change"
    if np.ptp(seen, axis=-1).max() >= COLOURED:
        raise UserError(
            f"{what} is a picture in colours with transparent areas: say by a grey image, white where the edit may happen"
        )
    luminance = np.asarray(Image.fromarray(rgba[..., :3]).convert("L"), float)
    return Image.fromarray((luminance * alpha / 255).round().astype(np.uint8)), "by luminance, transparent areas are kept"


def _by_numbers(values: np.ndarray, what: str) -> tuple[Image.Image, str]:
    """Greys, or whole numbers that are labels."""
    if not np.isfinite(values).all():
        raise UserError(f"{what} has values that are not finite (NaN or infinite): 0 is kept, 1 or 255 may change")
    low, top = values.min(), values.max()
    whole = bool((values == values.round()).all())
    if low < 0:
        raise UserError(f"{what} has negative values ({low:g}..{top:g}): 0 is kept, 1 or 255 may change")
    if not whole and top > 1 + SLACK:
        raise UserError(f"{what} has values up to {top:g} that are not whole: floats are 0..1, greys whole numbers up to 255")
    if whole and top <= 1:
        return _scaled(values, 1), "of 0 and 1: 1 may change"
    if whole and top <= LABELS:
        return _scaled(values > 0, 1), f"of {len(np.unique(values))} labels, up to {top:g}: all but 0 may change"
    if not whole:
        return _scaled(values.clip(0, 1), 1), "of values 0..1: 1 may change"
    if top <= 255:
        return _scaled(values, 255), "by luminance: white may change"
    return _scaled(values, top), f"of values up to {top:g}: that is white, and may change"


def _by_colours(rgb: np.ndarray, what: str) -> tuple[Image.Image, str]:
    """Colours on black are labels; anything else in colours is no mask."""
    brightest = rgb.max(-1)
    if (brightest < FLAT).mean() > 0.001 and not (rgb.min(-1) > 255 - FLAT).mean() > 0.001:
        return _scaled(brightest >= COLOURED, 1), "of colours on black: all but black may change"
    raise UserError(f"{what} is a picture in colours: say by a grey image, white where the edit may happen")


def _scaled(values: np.ndarray, white: float) -> Image.Image:
    return Image.fromarray((values * 255.0 / white).round().astype(np.uint8))
