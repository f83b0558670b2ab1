"""What tells files apart by their content."""

from hashlib import sha256
from pathlib import Path


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    return sha256(path.read_bytes()).hexdigest()
