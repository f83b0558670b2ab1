"""Files by names that another system wrote, with backslashes or in another normal form of Unicode; and the one that was meant."""

import re
import unicodedata
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ..errors import UserError

DIGITS = re.compile(r"\d+")


def file_in(folder: Path, name: str) -> Path:
    """The file of that name in the folder, or of the one name that reads alike; it need not be there.

    Raises UserError for a name that leads out of the folder, or that no file can have.
    """
    try:
        path = _inside(folder, name)
        if path.exists():
            return path
        return _spelled(folder, PurePosixPath(name.replace("\\", "/"))) or path
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # too long, links in a circle, half a character
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{name[:80]!r} cannot be the name of a file: {reason}") from None


def near_file(path: Path) -> str:
    """Which file may be meant by one that is not there, as the end of a message; empty where none is near.

    It is looked for in the folder, or where that is not there either, in the one above.
    """
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    names = _names(folder)
    same = [name for name in names if path.name.casefold() in (name.casefold(), Path(name).stem.casefold())]
    near = same or get_close_matches(path.name, [name for name in names if not _counts_on(name, path.name)], n=1, cutoff=0.75)
    if not near:
        return ""
    return f"; did you mean {near[0]!r}?" if folder == path.parent else f"; did you mean {str(folder / near[0])!r}?"


def _counts_on(name: str, other: str) -> bool:
    """Whether two names are those of a series, img3.png and img9.png, which nobody mistypes for each other."""
    return DIGITS.sub("", name.casefold()) == DIGITS.sub("", other.casefold()) and DIGITS.search(name) is not None


def _inside(folder: Path, name: str) -> Path:
    if not name:
        raise UserError(f"the name of a file in {folder} is empty")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{name!r} leaves the folder {folder}")
    return path


def _spelled(folder: Path, name: PurePosixPath) -> Path | None:
    """The one file below the folder whose name has the same composed form, part by part."""
    _inside(folder, str(name))
    path = folder
    for part in name.parts:
        wanted = unicodedata.normalize("NFC", part)
        there = [part] if (path / part).exists() else _names(path)
        same = [other for other in there if unicodedata.normalize("NFC", other) == wanted]
        if len(same) != 1:
            return None
        path = path / same[0]
    return path


def _names(folder: Path) -> tuple[str, ...]:
    """What is in a folder; none if it is not there."""
    try:
        return _names_at(folder, folder.stat().st_mtime_ns)
    except OSError:
        return ()


@lru_cache(maxsize=64)
def _names_at(folder: Path, changed: int) -> tuple[str, ...]:
    """Read once as long as nothing changes in the folder."""
    return tuple(path.name for path in folder.iterdir())
