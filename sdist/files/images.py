"""Pictures in and out: every kind of file becomes upright RGB, is fitted to the model, and is written atomically."""

import io
import logging
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from ..errors import UserError

log = logging.getLogger("sdist")

MAX_PIXELS = 64_000_000  # of an input file
MAX_RATIO = 4.0  # long side of the edited image over the model's native side
CARD_KEY = "sdist"  # of the run card in a PNG's text


def load_image(path: Path) -> Image.Image:
    """An upright 8-bit RGB image; transparency is put on white. UserError says what is wrong with a file."""
    image = _open(path)
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image, path).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        log.info("%s: transparent areas are put on white", path.name)
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of the upright image by what stands before its pixels, which are not read; UserError as above."""
    with _opened(path) as image:
        turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation) in range(5, 9)  # PNG's own would read the pixels
        return image.size[::-1] if turned else image.size


def _open(path: Path) -> Image.Image:
    with _opened(path) as image:
        image.load()
        return ImageOps.exif_transpose(image)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image with its header read; what is wrong with the file is a UserError, in the block too."""
    if not path.is_file():
        raise UserError(f"image {path} {'is not a file' if path.exists() else 'does not exist'}")
    if path.stat().st_size == 0:
        raise UserError(f"image {path} is empty (0 bytes)")
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"image {path} is {image.width} x {image.height}; at most {MAX_PIXELS} pixels are read")
            yield image
    except UnidentifiedImageError:
        raise UserError(f"image {path} is not an image that Pillow can read") from None
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"image {path} cannot be read: {error}") from None


def _from_deep(image: Image.Image, path: Path) -> Image.Image:
    """16-bit and float greys: 65535 (or 1.0 in float files) is white."""
    values = np.asarray(image, np.float64)
    top = 1.0 if image.mode == "F" else 65535.0
    if values.min() < 0 or values.max() > top:
        raise UserError(f"image {path} has values {values.min():g}..{values.max():g}; {image.mode} files need 0..{top:g}")
    return Image.fromarray((values * 255 / top).round().astype(np.uint8))


def fit(image: Image.Image, size: str, native: int, factor: int) -> Image.Image:
    """The image at a size that the model takes; a change is logged.

    "native" scales the short side to the model's and crops the long side to a multiple of `factor`; "keep" takes the
    image as it is; "WIDTHxHEIGHT" scales and crops around the centre.
    """
    goal = fitted_size(image.size, size, native, factor)
    if goal == image.size:
        return image
    log.info("image resized from %d x %d to %d x %d (--size)", *image.size, *goal)
    return ImageOps.fit(image, goal, Image.Resampling.LANCZOS)


def fitted_size(given: tuple[int, int], size: str, native: int, factor: int) -> tuple[int, int]:
    """Width and height that `fit` gives an image of the given ones; UserError for what the model cannot take."""
    width, height = _goal(given, size, native, factor)
    if width % factor or height % factor or min(width, height) < factor:
        raise UserError(f"size {width} x {height}: this model needs sides divisible by {factor}; try --size native")
    if max(width, height) > MAX_RATIO * native:
        raise UserError(f"size {width} x {height}: the long side may have {int(MAX_RATIO * native)} pixels on this model")
    return width, height


def _goal(given: tuple[int, int], size: str, native: int, factor: int) -> tuple[int, int]:
    if size == "keep":
        return given
    if size == "native":
        scale = native / min(given)
        width, height = (max(native, int(side * scale + 1e-6) // factor * factor) for side in given)
        return width, height
    parts = size.lower().split("x")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and 0 < len(p) <= 6 for p in parts):
        raise UserError(f"size must be native, keep or WIDTHxHEIGHT, got {size!r}")
    return int(parts[0]), int(parts[1])


def to_pixels(images: Sequence[Image.Image]) -> Float[Tensor, "b 3 h w"]:
    """Equally large RGB images in [-1, 1]."""
    arrays = np.stack([np.asarray(image, np.float32) for image in images])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous() / 127.5 - 1


def to_images(pixels: Float[Tensor, "b 3 h w"]) -> list[Image.Image]:
    """The inverse of `to_pixels`, rounded to 8 bits."""
    arrays = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in arrays]


def mask_image(mask: Float[Tensor, "1 h w"], size: tuple[int, int]) -> Image.Image:
    """A mask in 0..1 as a grey picture of that size."""
    grey = Image.fromarray((mask[0].float().cpu().numpy() * 255).round().astype(np.uint8))
    return grey.resize(size, Image.Resampling.BICUBIC).convert("RGB")


def panel(images: Sequence[Image.Image], gap: int = 4) -> Image.Image:
    """Pictures side by side, at least 256 pixels high so that small ones can be looked at."""
    factor = max(1, -(-256 // images[0].height))
    large = [i.resize((i.width * factor, i.height * factor), Image.Resampling.NEAREST) for i in images]
    out = Image.new("RGB", (sum(i.width for i in large) + gap * (len(large) - 1), large[0].height), "white")
    x = 0
    for image in large:
        out.paste(image, (x, 0))
        x += image.width + gap
    return out


def png_bytes(image: Image.Image, card: str | None = None) -> bytes:
    """A PNG, with the run card in its text if given."""
    info = PngImagePlugin.PngInfo()
    if card is not None:
        info.add_itxt(CARD_KEY, card, zip=True)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()
