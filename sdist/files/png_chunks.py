"""Chunks of a PNG: one by its kind, and a PNG without those that keep it from being read (text beyond Pillow's limit, damaged
colours, EXIF or checksums)."""

import os
import zlib
from collections.abc import Callable, Iterator
from typing import IO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk
CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
PIXELS = (*CRITICAL, b"tRNS", b"acTL", b"fcTL", b"fdAT")  # what the pixels depend on
KEPT = (*PIXELS, b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf")  # what else changes how they look


def mended(data: bytes) -> Iterator[bytes]:
    """First without text and without chunks of a wrong checksum, then without all that the pixels do not depend on."""
    if data.startswith(SIGNATURE):
        yield _only(data, lambda name, whole: name in KEPT and (whole or name in PIXELS))
        yield _only(data, lambda name, whole: name in (*CRITICAL, b"tRNS") and (whole or name != b"tRNS"))


def _only(data: bytes, keep: Callable[[bytes, bool], bool]) -> bytes:
    """The file with the chunks for which `keep(name, whether the checksum is right)`."""
    at, parts = len(SIGNATURE), [SIGNATURE]
    while at + 12 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        crc = int.from_bytes(data[end - 4 : end], "big")
        if keep(name, end <= len(data) and zlib.crc32(data[at + 4 : end - 4]) == crc):
            parts.append(data[at:end])
        at = end
    return b"".join(parts)


def find_chunk(file: IO[bytes], kind: bytes) -> bytes:
    """The data of an open PNG's first chunk of a kind, for which no pixels are read; nothing if it has none."""
    file.seek(len(SIGNATURE))
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[:4], "big")
        if head[4:] == kind:
            return file.read(length)
        file.seek(length + 4, os.SEEK_CUR)  # and its checksum
    return b""
