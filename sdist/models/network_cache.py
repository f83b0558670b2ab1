"""Converted networks on this disk, for later runs: a file each, which says whether it is whole.

In XDG_CACHE_HOME or ~/.cache, the folder sdist/networks. Whatever cannot be read or written is made again.
"""

import logging
import os
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from ..files.storage import write_atomic

log = logging.getLogger("sdist")

DIGEST, LENGTH = 32, 8  # bytes: of all that follows; of the description, before the weights


def folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdist" / "networks"


def read(key: str) -> tuple[bytes, bytes] | None:
    """Description and weights; None if they are not there or damaged."""
    try:
        data = (folder() / key).read_bytes()
    except OSError:
        return None
    digest, content = data[:DIGEST], memoryview(data)[DIGEST:]
    if sha256(content).digest() != digest:
        log.warning("%s is damaged and is made again", folder() / key)
        return None
    start = LENGTH + int.from_bytes(content[:LENGTH], "big")
    return bytes(content[LENGTH:start]), bytes(content[start:])


def write(key: str, save: Callable[[Path, Path], None]) -> None:
    """Keeps what `save` writes to a description and, beside it, to weights."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder()) as place:
            xml, weights = Path(place, "network.xml"), Path(place, "network.bin")
            save(xml, weights)
            description = xml.read_bytes()
            content = len(description).to_bytes(LENGTH, "big") + description + weights.read_bytes()
        write_atomic(folder() / key, sha256(content).digest() + content)
    except OSError as error:
        log.warning("the converted network is not kept: %s", error)


def sizes() -> list[int]:
    """Bytes of each file that is kept."""
    return [path.stat().st_size for path in _files()]


def clear() -> None:
    for path in _files():
        path.unlink(missing_ok=True)


def _files() -> list[Path]:
    return [path for path in folder().glob("*") if path.is_file()]
