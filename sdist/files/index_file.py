"""index.csv: where it is, and which columns it has."""

import os
from pathlib import Path

from ..errors import UserError

COLUMNS = ("img_path", "source_prompt", "target_prompt")
MORE = ("instruction", "mask", "category", "caption", "truth")  # optional: edits read the first two, evaluations the last four
NAME = "index.csv"


def index_file(folder: Path) -> Path:
    """The index.csv of a folder. Raises a UserError that says what is there instead."""
    path = folder / NAME
    if path.is_file():
        return path
    if folder.is_file():
        raise UserError(f"{folder} is a file; give its folder, which holds {NAME} and images/")
    if not folder.is_dir():
        raise UserError(f"input folder {folder} does not exist")
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a link that leads to no file")
    if os.path.lexists(path):
        raise UserError(f"{path} is no file but a folder, a pipe or a device")
    others = sorted(file.name for file in folder.iterdir() if file.stem.casefold() == "index" and file != path)
    there = f", but {others[0]}; save it as {NAME}" if others else ""
    raise UserError(f"{path} does not exist{there}; it lists {', '.join(COLUMNS)}, with the images in {folder / 'images'}")
