"""Where an image is, for what a person or a program writes: a path, or a file: URL; other URLs are refused by name."""

import os
import re
from pathlib import Path

from ..errors import UserError

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?")  # of two letters at least: C:\ is a drive


def image_path(path: str | os.PathLike[str]) -> Path:
    """The path of an image. Raises UserError for an empty one, and for a URL, unless it is one of a file here."""
    text = os.fspath(path)
    if not text:
        raise UserError("the path of an image is empty: name its file")
    scheme = SCHEME.match(text) if isinstance(path, str) else None
    if scheme is None or Path(text).exists():
        return Path(path)
    name = scheme[1].lower()
    if name == "file":
        from urllib.parse import urlsplit
        from urllib.request import url2pathname  # both load http and ssl, which the start of the command line need not wait for

        parts = urlsplit(text)
        if parts.netloc in ("", "localhost"):
            return Path(url2pathname(parts.path))
        raise UserError(f"picture {text} is on another machine ({parts.netloc}): copy it here first")
    if name == "data":
        raise UserError(f"picture {text[:40]}... is a data: URL: decode it (base64), and give the bytes or a file of them")
    if scheme[2]:
        raise UserError(f"picture {text} is a URL: download it first, and give the file")
    return Path(text)
