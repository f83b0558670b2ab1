"""Opens an image file of any kind: its first frame, upright; what is wrong with the file is one line that says what it is."""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import IMAGEWIDTH, TiffImageFile

from ..errors import UserError
from .formats import AVIF, HEAD, RAW, foreign_kind, image_kind
from .grey import transparency_in_8_bits
from .named import near_file
from .png_chunks import SIGNATURE, find_chunk, mended, note_colours

T = TypeVar("T")

MAX_PIXELS = 64_000_000  # of an input file
RAW_ENDS = (".dng", ".nef", ".nrw", ".arw", ".sr2", ".pef", ".srw", ".3fr", ".erf", ".kdc", ".dcr", ".mos", ".iiq", ".rwl")
DNG_VERSION, SUBFILE_TYPE, SUB_IFDS = 50706, 254, 330  # tags of a TIFF


def image_size(path: Path, what: str = "image") -> tuple[int, int]:
    """Width and height of the upright image by what stands before its pixels, which are not read.

    Raises UserError, which calls the file `what` it is given as.
    """
    return _reading(path, _upright_size, what)[0]


def first_frame(path: Path, what: str = "image") -> tuple[Image.Image, list[str], list[str]]:
    """The upright first frame with its pixels read, what was left out, and what is wrong with the file. Raises UserError."""
    (image, notes, faults), is_mended = _reading(path, _upright, what)
    lost = ["text, colour or EXIF chunks that are too large or damaged were left out"] if is_mended else []
    return image, notes, [*lost, *faults]


def _upright_size(image: Image.Image) -> tuple[int, int]:
    try:
        turned = _exif(image).get(ExifTags.Base.Orientation) in range(5, 9)
    except Exception:  # damaged EXIF, see _upright
        return image.size
    already = isinstance(image, TiffImageFile) and image.size[0] != image.tag_v2[IMAGEWIDTH]  # Pillow turns its size itself
    return image.size[::-1] if turned and not already else image.size


def _exif(image: Image.Image) -> Image.Exif:
    """What a file says beside its pixels, which are not read for it; in a PNG it may stand behind them."""
    exif = Image.Image.getexif(image)
    if isinstance(image, PngImageFile) and "exif" not in image.info and (file := image.fp) is not None:
        place = file.tell()
        exif.load(find_chunk(file, b"eXIf"))
        file.seek(place)
    return exif


def _upright(image: Image.Image) -> tuple[Image.Image, list[str], list[str]]:
    frames = _frames(image)
    notes = [f"the first of {frames} frames is taken"] if frames > 1 else []
    note_colours(image)
    image.load()
    transparency_in_8_bits(image)
    try:
        return ImageOps.exif_transpose(image), notes, []
    except Exception:  # of any class, where EXIF is damaged
        return image.copy(), notes, ["EXIF is damaged: the image is taken as it is stored, not turned"]


def _frames(image: Image.Image) -> int:
    """How many images the file holds; a PSD has layers instead, and is read as a whole."""
    try:
        return 1 if image.format == "PSD" else getattr(image, "n_frames", 1)
    except Exception:  # what follows the first frame is damaged
        return 1


def _reading(path: Path, use: Callable[[Image.Image], T], what: str) -> tuple[T, bool]:
    """What `use` makes of the open file, and whether it had to be mended for that."""
    _check_file(path, what)
    errors: list[Exception] = []
    for source in _sources(path):
        try:
            with Image.open(source) as image:
                _check(image, path, what)
                return use(image), source is not path
        except UserError:
            raise
        except Exception as error:  # whatever a damaged file makes Pillow's plugins raise
            errors.append(error)
    raise _refusal(path, errors[0], what)


def _sources(path: Path) -> Iterator[Path | BytesIO]:
    yield path
    with path.open("rb") as file:
        if file.read(len(SIGNATURE)) == SIGNATURE:
            file.seek(0)
            yield from map(BytesIO, mended(file.read()))


def _check_file(path: Path, what: str) -> None:
    try:
        is_file, size = path.is_file(), path.stat().st_size if path.exists() else None
    except (OSError, ValueError) as error:  # no access, a name that is too long, or one that no file can have
        raise UserError(f"{what} {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if size is None:
        lost = "leads to a file that is not there" if path.is_symlink() else f"does not exist{near_file(path)}"
        raise UserError(f"{what} {path} {lost}")
    if not is_file:
        raise UserError(f"{what} {path} is not a file")
    if size == 0:
        raise UserError(f"{what} {path} is empty (0 bytes); download or copy it again")


def _check(image: Image.Image, path: Path, what: str) -> None:
    """Raises UserError for what Pillow opens, and what should not be read."""
    if image.width * image.height > MAX_PIXELS:
        raise UserError(f"{what} {path} is {image.width} x {image.height}; at most {MAX_PIXELS} pixels are read")
    if image.format == "TIFF" and _is_raw(image, path):
        raise UserError(f"{what} {path} is {RAW.name}, of which Pillow reads a preview at most: {RAW.remedy}")


def _is_raw(image: Image.Image, path: Path) -> bool:
    tags = getattr(image, "tag_v2", {})
    preview = tags.get(SUBFILE_TYPE) == 1 and SUB_IFDS in tags
    return DNG_VERSION in tags or preview or path.suffix.lower() in RAW_ENDS


def _refusal(path: Path, error: Exception, what: str) -> UserError:
    """Why a file cannot be read."""
    if isinstance(error, OSError) and error.strerror:  # of the disk
        return UserError(f"{what} {path} cannot be read: {error.strerror}")
    with path.open("rb") as file:
        head = file.read(HEAD)
    if isinstance(error, Image.DecompressionBombError):
        return UserError(f"{what} {path} cannot be read: {error}")
    kind, name = foreign_kind(head), image_kind(head)
    if kind is AVIF and "avif" in features.modules and features.check_module("avif"):
        kind, name = None, "AVIF"
    if kind is not None:
        return UserError(f"{what} {path} is {kind.name}, not an image that can be read: {kind.remedy}")
    if name is not None:
        why = "" if isinstance(error, UnidentifiedImageError) else f" ({' '.join(str(error).split())})"
        begins = f"it begins as {name}, and is cut short, damaged or of a rare kind{why}"
        return UserError(f"{what} {path} cannot be read: {begins}; copy it again, or save it as PNG")
    return UserError(f"{what} {path} is not an image that Pillow can read; save it as PNG or JPEG")
