"""Chunks of a PNG: one by its kind, and a PNG without those that keep it from being read (text beyond Pillow's limit, damaged
colours, EXIF or checksums)."""

import os
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import IO

from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk
CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
PIXELS = (*CRITICAL, b"tRNS", b"acTL", b"fcTL", b"fdAT")  # what the pixels depend on
CICP = "cicp"  # what the chunk says, among an image's other information
UNIT = 100_000  # what stands for 1 in gAMA and cHRM
KEPT = (*PIXELS, b"iCCP", b"cICP", b"sRGB", b"gAMA", b"cHRM", b"eXIf")  # what else changes how they look


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


def note_colours(image: Image.Image) -> None:
    """Puts what a PNG's cICP chunk says, which Pillow does not read, beside what it does, if the image's file is open."""
    file = getattr(image, "fp", None)
    if isinstance(image, PngImageFile) and file is not None:
        place = file.tell()
        if code := find_chunk(file, b"cICP"):
            image.info[CICP] = code
        file.seek(place)


def colour_chunks(image: Image.Image) -> PngInfo:
    """The chunks that say again what an image that was read from a PNG says of its colours, beside a profile."""
    chunks, info = PngInfo(), image.info
    if CICP in info:
        chunks.add(b"cICP", info[CICP])
    if "srgb" in info:
        chunks.add(b"sRGB", bytes([info["srgb"]]))
    if "gamma" in info:
        chunks.add(b"gAMA", round(info["gamma"] * UNIT).to_bytes(4, "big"))
    if "chromaticity" in info:
        chunks.add(b"cHRM", b"".join(round(value * UNIT).to_bytes(4, "big") for value in info["chromaticity"]))
    return chunks


def find_chunk(file: IO[bytes] | BytesIO, kind: bytes) -> bytes:
    """The data of an open PNG's first chunk of a kind, for which no pixels are read; nothing if it has none."""
    file.seek(len(SIGNATURE))
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[:4], "big")
        if head[4:] == kind:
            return file.read(length)
        file.seek(length + 4, os.SEEK_CUR)  # and its checksum
    return b""
