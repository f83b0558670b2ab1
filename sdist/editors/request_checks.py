"""What is wrong with a request and known before a model is loaded for it."""

from collections.abc import Iterable

from ..config.settings import Settings
from ..edits.request import Request
from ..errors import UserError
from ..files.masks import check_allows, check_shape, read_mask
from ..files.opening import image_size

SUCH_AS = {"words": "lusd", "mask": "lusd", "instruction": "instruct_pix2pix"}  # a method that reads it
MASK = "--mask IMAGE, or the column mask of index.csv"


def check_before_loading(settings: Settings, request: Request, method: str) -> None:
    """Raises UserError for what the method does not read, words that are not there, and a mask that cannot be one."""
    check_reads(settings.reads, request, method)
    settings.editor.check_named(request)
    check_mask(settings, request)
    if request.mask_file is not None:
        check_allows(read_mask(request.mask_file, request.plain).image, request.mask_file.name)


def check_reads(reads: Iterable[str], request: Request, method: str) -> None:
    """Raises UserError for what is given beside the prompts to a method that reads `reads`."""
    optional = {"words": request.words, "mask": request.mask, "instruction": request.instruction}
    foreign = [name for name, value in optional.items() if value and name not in reads]
    if foreign:
        it, such = ("it", SUCH_AS[foreign[0]]) if len(foreign) == 1 else ("them", "")
        other = f", or use a method that reads it, such as {such}" if such else ""
        raise UserError(f"{method} reads no {' and no '.join(foreign)}: leave {it} out{other}")


def check_mask(settings: Settings, request: Request) -> None:
    """Raises UserError for a mask of another shape than its image, by their headers, and for one that is needed and missing."""
    if request.mask_file is not None and not request.plain:
        check_shape(image_size(request.mask_file, "mask"), image_size(request.file), request.mask_file.name, request.image.name)
    if request.mask is None and settings.crop == "mask":
        raise UserError(f"--crop mask needs a mask image ({MASK}); --crop auto crops where there is one")
    if request.mask is None and settings.keep_background and not settings.editor.has_mask:
        raise UserError(f"--keep-background needs a mask, and this method makes none: give a mask image ({MASK})")
