"""What Python code gives as an image, as a file: paths stay, what is in memory becomes a temporary file of its content."""

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ..errors import UserError
from .grey import transparency_in_8_bits
from .paths import image_path
from .png_chunks import colour_chunks, note_colours

log = logging.getLogger("sdist")

Picture = str | os.PathLike[str] | Image.Image | np.ndarray | bytes | bytearray | memoryview | BinaryIO | io.IOBase
PICTURES = (str, os.PathLike, Image.Image, np.ndarray, bytes, bytearray, memoryview, io.IOBase)  # as types
TAKEN = "a path, a PIL image, an array (height, width[, 3 or 4]) of uint8, or the bytes of a file"
PNG, TIFF = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), ("I", "F", "CMYK", "LAB")  # modes that such a file can hold
OTHER_16 = ("I;16B", "I;16L", "I;16N")  # grey of 16 bits in other orders of bytes


_given: dict[str, str] = {}  # what was given, by the name of the file that it became


def called(name: str, what: str = "") -> str:
    """How messages call a file, by its name after `what`; one that nobody gave, by what was given."""
    return _given.get(name) or f"{what} {name}".lstrip()


def in_memory(**pictures: Any) -> list[str]:
    """The names of those that are no files."""
    return [name for name, picture in pictures.items() if not isinstance(picture, (str, os.PathLike, type(None)))]


@contextmanager
def image_file(picture: Any, is_mask: bool = False) -> Iterator[Path]:
    """Where an image is; one in memory becomes a temporary file, named after its content. Raises UserError.

    A mask may also be an array of numbers or truth values.
    """
    if isinstance(picture, (str, os.PathLike)):
        yield image_path(picture)
        return
    with TemporaryDirectory() as folder:
        path = _written(Path(folder), picture, is_mask)
        try:
            yield path
        except UserError as error:
            raise UserError(str(error).replace(str(path), f"given as {type(picture).__name__}")) from None


@cache
def _kept() -> TemporaryDirectory[str]:
    return TemporaryDirectory()


def kept_file(picture: Any, is_mask: bool = False) -> Path:
    """What is in memory as a file, named after its content, until this process ends. Raises UserError for what is no image."""
    return _written(Path(_kept().name), picture, is_mask)


def _written(folder: Path, picture: Any, is_mask: bool) -> Path:
    data, end = _content(picture, is_mask)
    path = folder / f"{sha256(data).hexdigest()[:16]}{end}"
    path.write_bytes(data)
    _given[path.name] = f"{'mask' if is_mask else 'image'} given as {type(picture).__name__}"
    return path


def is_kept(path: Path) -> bool:
    """Whether the file is one that this process has made of what was in memory."""
    return bool(_kept.cache_info().currsize) and path.parent == Path(_kept().name)


def _content(picture: Any, is_mask: bool) -> tuple[bytes, str]:
    """The bytes of a file, and the ending of its name."""
    what = "mask" if is_mask else "image"
    if hasattr(picture, "read"):
        picture = _read(picture)
    if isinstance(picture, (bytes, bytearray, memoryview)):
        if not len(picture):
            raise UserError(f"the {what} that was given has 0 bytes")
        return bytes(picture), ".image"
    if isinstance(picture, np.ndarray) and not isinstance(picture, np.ma.MaskedArray):
        picture = _from_array(picture, is_mask)
    if not isinstance(picture, Image.Image):
        kind = f"{type(picture).__module__.partition('.')[0]}.{type(picture).__name__}".removeprefix("builtins.")
        one = ", one at a time" if isinstance(picture, (list, tuple)) else ""
        raise UserError(f"the {what} cannot be given as {kind}; give {TAKEN}{one}")
    return _encoded(_upright(picture))


def _read(file: Any) -> Any:
    """All of an open file, from its beginning."""
    try:
        if hasattr(file, "seek"):
            file.seek(0)
        data = file.read()
    except (OSError, ValueError) as error:  # closed, or not one that can be read
        raise UserError(f"the {type(file).__name__} that was given cannot be read: {error}") from None
    if isinstance(data, str):
        raise UserError(f"the {type(file).__name__} that was given is open as text; open it with mode 'rb'")
    return data


def _upright(picture: Image.Image) -> Image.Image:
    try:
        note_colours(picture)
        picture.load()
        transparency_in_8_bits(picture)
        frames = getattr(picture, "n_frames", 1)
    except Exception as error:  # closed, or of a file that is cut
        raise UserError(f"the PIL image that was given cannot be read (closed or damaged): {error}") from None
    if not (picture.width and picture.height):
        raise UserError(f"the PIL image that was given has no pixels ({picture.width} x {picture.height})")
    if frames > 1:
        log.info("of the PIL image's %d frames the one at which it stands is taken", frames)
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # of any class, where EXIF is damaged
        log.warning("the PIL image's EXIF is damaged: it is taken as it is stored, not turned")
        return picture.copy()


def _encoded(image: Image.Image) -> tuple[bytes, str]:
    if image.mode in OTHER_16:
        image = Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.mode not in (*PNG, *TIFF):
        profile = image.info.get("icc_profile") if image.mode in ("RGBX", "RGBa", "La", "PA") else None
        image = image.convert("RGBA" if image.mode in ("RGBa", "PA") else "LA" if image.mode == "La" else "RGB")
        image.info["icc_profile"] = profile
    kind, end = ("PNG", ".png") if image.mode in PNG else ("TIFF", ".tif")
    buffer = io.BytesIO()
    try:
        chunks = {"pnginfo": colour_chunks(image)} if kind == "PNG" else {}
        image.save(buffer, kind, icc_profile=image.info.get("icc_profile"), **chunks)
    except Exception as error:  # of any class, where its info holds what no file can
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        said = ", ".join(map(str, image.info))
        raise UserError(
            f"the PIL image that was given cannot be written as a {kind}, by what its info says ({said}; {reason}): "
            "image.info.clear() leaves the pixels"
        ) from None
    return buffer.getvalue(), end


def _from_array(array: np.ndarray, is_mask: bool) -> Image.Image:
    """The image of an array. Raises UserError for a shape or numbers that are none."""
    shape = f"{' x '.join(map(str, array.shape)) or 'one number'} of {array.dtype}"
    if not array.size:
        raise UserError(f"the array has no pixels ({shape})")
    flat = array.squeeze() if is_mask and array.ndim == 3 and 1 in array.shape else array
    flat = flat[..., 0] if flat.ndim == 3 and flat.shape[2] == 1 else flat
    if is_mask and flat.ndim == 2 and flat.dtype.kind in "bui f":
        return _from_numbers(flat)
    if flat.dtype != np.uint8 or flat.ndim not in (2, 3) or (flat.ndim == 3 and flat.shape[2] not in (3, 4)):
        numbers = "of truth values or numbers, " if is_mask else ""
        hint = "; channels come last" if flat.ndim == 3 and flat.shape[0] in (1, 3, 4) else ""
        raise UserError(f"an array must be (height, width), {numbers}or with 3 or 4 channels, of uint8; got {shape}{hint}")
    return Image.fromarray(np.ascontiguousarray(flat))


def _from_numbers(numbers: np.ndarray) -> Image.Image:
    """A mask's numbers as a file holds them, unchanged: in 8 bits, or as floats."""
    if numbers.dtype.kind == "b":
        return Image.fromarray(numbers.astype(np.uint8) * 255)
    return Image.fromarray(np.ascontiguousarray(numbers) if numbers.dtype == np.uint8 else numbers.astype(np.float32))
