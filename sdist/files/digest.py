"""What tells files apart by their content."""

from functools import lru_cache
from hashlib import sha256
from pathlib import Path

PIECE = 2**20  # bytes that are read at once


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def kept_digest(path: Path) -> str:
    """The same, computed once as long as the file's time and size stay: for large files that are asked for with every edit."""
    state = path.stat()
    return _digest(path.resolve(), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=256)
def _digest(path: Path, modified: int, size: int) -> str:
    return file_digest(path)
