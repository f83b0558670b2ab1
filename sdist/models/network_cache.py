"""Converted networks on this disk, for later runs: a folder each, with the digests of its files.

In XDG_CACHE_HOME or ~/.cache, the folder sdist/networks. Whatever cannot be read or written is made again, and beyond LARGEST
bytes those that were used longest ago are removed.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..files.digest import file_digest

log = logging.getLogger("sdist")

FILES = ("network.xml", "network.bin")  # description and weights
DIGESTS = "digests.txt"
LARGEST = 8 * 10**9  # bytes of all together; room for two networks of Stable Diffusion 1


def folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdist" / "networks"


def read(key: str) -> tuple[Path, Path] | None:
    """The files of description and weights; None if they are not there or damaged."""
    place = folder() / key
    try:
        is_whole = (place / DIGESTS).read_bytes() == _digests(place)
    except OSError:
        is_whole = False
    with suppress(OSError):  # where nothing can be written
        os.utime(place)  # used now
    if not is_whole and place.exists():
        log.warning("%s is damaged and is made again", place)
    return (place / FILES[0], place / FILES[1]) if is_whole else None


def write(key: str, save: Callable[[Path, Path], None]) -> None:
    """Keeps what `save` writes to a description and, beside it, to weights."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder()) as beside:
            place = Path(beside, key)
            place.mkdir()
            save(place / FILES[0], place / FILES[1])
            (place / DIGESTS).write_bytes(_digests(place))
            _remove(folder() / key)
            place.rename(folder() / key)
    except OSError as error:
        log.warning("the converted network is not kept: %s", error)
    with suppress(OSError):  # another process may make room too
        _make_room()


def sizes() -> list[int]:
    """Bytes of each network that is kept."""
    return [_size(path) for path in _networks()]


def clear() -> None:
    for path in _networks():
        _remove(path)


def _networks() -> list[Path]:
    """All that are kept; what is being written has a name that begins with a dot."""
    return list(folder().glob("[!.]*"))


def _make_room() -> None:
    """The newest stays, however large it is."""
    kept = sorted(_networks(), key=lambda path: path.stat().st_mtime_ns)
    while len(kept) > 1 and sum(map(_size, kept)) > LARGEST:
        _remove(kept.pop(0))


def _digests(place: Path) -> bytes:
    return "".join(f"{file_digest(place / name)}  {name}\n" for name in FILES).encode()  # as sha256sum writes and reads them


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
