"""What a finished picture leaves on disk: the picture with its run card, a panel, and the card as json."""

import json
import tempfile
from pathlib import Path
from typing import Any

from .editing import Result
from .errors import UserError
from .images import mask_image, panel, png_bytes, write_atomic


def writable_folder(path: Path) -> Path:
    """The folder, made if needed; UserError if nothing can be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"output folder {path} cannot be written: {error.strerror or error}") from None
    return path


def output_files(folder: Path, name: str) -> dict[str, Path]:
    """The files of one picture, the picture itself last written, so that it is there only if all are."""
    return {
        "card": folder / f"{name}.json",
        "panel": folder / f"{name}_panel.png",
        "image": folder / f"{name}.png",
    }


def write_result(files: dict[str, Path], result: Result, card: dict[str, Any]) -> None:
    """Writes card, panel (source, mask if there is one, edit) and picture, each atomically, in this order."""
    text = json.dumps(card, indent=1, ensure_ascii=False)
    mask = [] if result.mask is None else [mask_image(result.mask, result.image.size)]
    write_atomic(files["card"], text.encode())
    write_atomic(files["panel"], png_bytes(panel([result.prepared.image, *mask, result.image])))
    write_atomic(files["image"], png_bytes(result.image, text))
