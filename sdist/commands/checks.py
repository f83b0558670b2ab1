"""What a person gave is checked before anything slow is loaded: files, prompts, method. Imports no torch."""

from pathlib import Path

from ..config.methods import find_yaml
from ..edits.prompt_checks import check_prompts
from ..errors import UserError
from ..files.csv_rows import read_rows
from ..files.index_file import COLUMNS, index_file
from ..spelling import clean

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic")


def split_output(output: Path, seeds: int) -> tuple[Path, str | None]:
    """The folder that --output means, and the name of the result if it is a file. Raises UserError for a file that cannot be."""
    suffix = output.suffix.lower()
    if suffix not in SUFFIXES or output.is_dir():
        return output, None
    if suffix != ".png":
        better = output.with_suffix(".png").name
        raise UserError(f"--output {output}: results are PNG files, which hold their run card; name it {better}")
    if seeds > 1:
        raise UserError(f"--output {output} is one image, and --seeds {seeds} makes {seeds}; name a folder")
    return output.parent, output.stem


def check_image(image: Path, mask: Path | None) -> None:
    """Raises UserError for a file that is no image, by its first bytes."""
    from ..files.opening import image_size

    image_size(image)
    if mask is not None:
        image_size(mask, "mask")


def check_input(source: str) -> None:
    """Raises UserError for a folder without index.csv, or one that is no table of the columns that it needs.

    FORMAT:DIR is looked at later, when the formats are loaded.
    """
    folder = source.removeprefix("index:")
    if ":" not in folder or Path(folder).exists():
        next(read_rows(index_file(Path(folder)), COLUMNS), None)


def check_request(source: str, target: str, instruction: str, method: str) -> None:
    """Raises UserError for prompts that ask for nothing, and for a method that is not there."""
    if not instruction.strip():
        check_prompts(clean(source), clean(target))
    find_yaml("method", method)
