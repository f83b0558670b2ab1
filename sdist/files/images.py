"""Images in and out: every kind of file becomes upright RGB, is fitted to the model, and is written atomically."""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, PngImagePlugin
from torch import Tensor

from ..errors import UserError
from .colours import to_srgb
from .grey import is_deep, plain_16_bits, to_8_bits
from .in_memory import called
from .opening import first_frame
from .sizes import stated_size

log = logging.getLogger("sdist")

MAX_RATIO = 4.0  # long side of the edited image over the model's native side
DARK = 16  # of 255: an image without a value above is nearly black
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}  # that results are saved in, by suffix
CARD_KEY = "sdist"  # of the run card in a PNG's text


@dataclass(frozen=True)
class LoadedImage:
    """An image with what was done to its file's content, and what is wrong with it although it could be read."""

    image: Image.Image
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def report(self, name: str) -> None:
        """Says both in the log, each in one line."""
        if self.notes:
            log.info("%s: %s", called(name), "; ".join(self.notes))
        if self.faults:
            log.warning("%s: %s", called(name), "; ".join(self.faults))


def load_image(path: Path) -> Image.Image:
    """An upright 8-bit RGB image in sRGB; the log says what was done. Raises UserError for a file that is none."""
    read = read_image(path)
    read.report(path.name)
    return read.image


def read_image(path: Path, plain: bool = False) -> LoadedImage:
    """An upright 8-bit RGB image in sRGB, transparency on white: the first frame of the file. Raises UserError.

    `plain`: as run cards without a note on reading were made, whatever the colour profile says; 65535 is white.
    """
    image, notes, faults = first_frame(path)
    if is_deep(image):
        said = {name: value for name, value in image.info.items() if name != "transparency"}
        image, deep = (plain_16_bits(image, f"image {path}"), []) if plain else to_8_bits(image, f"image {path}")
        image.info |= said
        notes += deep
    if not plain:
        image, done, wrong = to_srgb(image)
        notes, faults = notes + done, faults + wrong
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image, done, wrong = _on_white(image.convert("LA") if image.mode == "La" else image, plain)
        notes, faults = notes + done, faults + wrong
    image = image.convert("RGB")
    if (top := max(high for _, high in _extrema(image))) < DARK:
        faults.append(f"nearly black: its largest value is {top} of 255")
    return LoadedImage(image, notes, faults)


def _on_white(image: Image.Image, plain: bool) -> tuple[Image.Image, list[str], list[str]]:
    """What is transparent becomes white; where all of a picture would, its alpha is taken for a mistake, unless `plain`."""
    rgba = image.convert("RGBA")
    *colours, (lowest, highest) = _extrema(rgba)
    if not highest and any(low < high for low, high in colours) and not plain:
        return rgba.convert("RGB"), [], ["transparent everywhere: its transparency is left out"]
    done = ["transparent areas are put on white"] if lowest < 255 else []
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba), done, []


def _extrema(image: Image.Image) -> tuple[tuple[int, int], ...]:
    """The least and the largest value of each channel, of which there are several."""
    return cast(tuple[tuple[int, int], ...], image.getextrema())


def fit(image: Image.Image, size: str, native: int, factor: int) -> Image.Image:
    """The image at a size that the model takes, see `fit_note`.

    "native" scales the short side to the model's and crops the long side to a multiple of `factor`; "keep" takes the
    image as it is, but for what is beyond such a multiple; "WIDTHxHEIGHT" scales and crops around the centre.
    """
    goal = fitted_size(image.size, size, native, factor)
    if goal == image.size:
        return image
    if size == "keep":
        left, top = ((side - kept) // 2 for side, kept in zip(image.size, goal, strict=True))
        return image.crop((left, top, left + goal[0], top + goal[1]))
    return ImageOps.fit(image, goal, Image.Resampling.LANCZOS)


def fit_note(original: tuple[int, int], goal: tuple[int, int]) -> list[str]:
    """What `fit` cuts away around the centre and how it scales, with its numbers; nothing where it leaves the size."""
    (width, height), (w, h) = original, goal
    if original == goal:
        return []
    kept = (round(min(width, height * w / h)), round(min(height, width * h / w)))
    cut = "" if kept == original else f"cut around the centre to {kept[0]} x {kept[1]} and "
    scaled = "" if kept == goal else f"scaled to {w} x {h}"
    return [f"{width} x {height} pixels are {cut}{scaled}".removesuffix(" and ")]


def fitted_size(original: tuple[int, int], size: str, native: int, factor: int) -> tuple[int, int]:
    """Width and height that `fit` gives an image of the given ones. Raises UserError for what the model cannot take."""
    width, height = _goal(original, size, native, factor)
    if width % factor or height % factor or min(width, height) < factor:
        given = f"--size {size}" if size != "keep" else f"--size keep of {original[0]} x {original[1]} pixels"
        near = "native" if size == "keep" else _near((width, height), native, factor)
        raise UserError(f"{given}: this model needs sides divisible by {factor}, {factor} at least; try --size {near}")
    if max(width, height) > (most := int(MAX_RATIO * native)):
        given = f"{original[0]} x {original[1]} pixels at --size {size} are {width} x {height}"
        remedy = f"--size {_near((width, height), native, factor)} scales it, and cuts what is beyond away around the centre"
        raise UserError(f"{given}: the long side may have {most} pixels on this model; {remedy}")
    return width, height


def _near(size: tuple[int, int], native: int, factor: int) -> str:
    """The nearest size below that the model takes: as wide to high, if no side gets shorter than the model's own by that."""
    scale = min(1.0, MAX_RATIO * native / max(*size, 1))
    width, height = (max(int(scale * side / factor + 1e-6), min(side, native) // factor, 1) * factor for side in size)
    return f"{width}x{height}"


def _goal(original: tuple[int, int], size: str, native: int, factor: int) -> tuple[int, int]:
    stated = stated_size(size)
    if size == "keep":
        width, height = (side // factor * factor for side in original)
        return width, height
    if stated is None:
        scale = native / min(original)
        width, height = (max(native, int(side * scale + 1e-6) // factor * factor) for side in original)
        return width, height
    return stated


def to_pixels(images: Sequence[Image.Image]) -> Float[Tensor, "b 3 h w"]:
    """Equally large RGB images in [-1, 1]."""
    arrays = np.stack([np.asarray(image, np.float32) for image in images])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous() / 127.5 - 1


def to_images(pixels: Float[Tensor, "b 3 h w"]) -> list[Image.Image]:
    """The inverse of `to_pixels`, rounded to 8 bits."""
    arrays = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in arrays]


def mask_image(mask: Float[Tensor, "1 h w"], size: tuple[int, int]) -> Image.Image:
    """A mask in 0..1 as a grey image of that size."""
    grey = Image.fromarray((mask[0].float().cpu().numpy() * 255).round().astype(np.uint8))
    return grey.resize(size, Image.Resampling.BICUBIC).convert("RGB")


def panel(images: Sequence[Image.Image], gap: int = 4) -> Image.Image:
    """Images side by side, at least 256 pixels high so that small ones can be looked at."""
    factor = max(1, -(-256 // images[0].height))
    large = [i.resize((i.width * factor, i.height * factor), Image.Resampling.NEAREST) for i in images]
    out = Image.new("RGB", (sum(i.width for i in large) + gap * (len(large) - 1), large[0].height), "white")
    x = 0
    for image in large:
        out.paste(image, (x, 0))
        x += image.width + gap
    return out


def image_bytes(image: Image.Image, kind: str) -> bytes:
    """The file of a format that loses little of what the eye sees."""
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=95)
    return buffer.getvalue()


def png_bytes(image: Image.Image, card: str | None = None) -> bytes:
    """A PNG, with the run card in its text if given."""
    info = PngImagePlugin.PngInfo()
    if card is not None:
        info.add_itxt(CARD_KEY, card, zip=True)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()
