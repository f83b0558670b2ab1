"""What a file is by its first bytes, for files that are no images here: its name, and what to do about it."""

import re
from typing import NamedTuple

HEAD = 4096  # bytes that are looked at


class Kind(NamedTuple):
    """A kind of file, "a web page", and what to do about one that was given as an image."""

    name: str
    remedy: str


CONVERT = "save it as PNG or JPEG"
HEIC = Kind("a HEIC photo", "export it as JPEG or PNG, or convert it with `pip install pillow-heif`")
AVIF = Kind("an AVIF picture", f"pip install -U pillow, or {CONVERT}")
JXL = Kind("a JPEG XL picture", f"{CONVERT}, for example with djxl")
RAW = Kind("a camera's raw file", f"develop it, and {CONVERT}")
VIDEO = Kind("a video", "save one frame of it as PNG")
PAGE = Kind("a web page (HTML)", "download the picture itself, not the page around it")
ANSWER = Kind("a server's answer in text (JSON or XML)", "read it; the download went wrong")
POINTER = Kind("a git LFS pointer, not the file itself", "fetch it with `git lfs pull`")
ANNEX = Kind("a git-annex pointer, not the file itself", "fetch it with `git annex get`")
DRAWING = Kind("an SVG drawing", "export it as PNG")
DOCUMENT = Kind("a document (PDF or PostScript)", "export the page as PNG")
ARCHIVE = Kind("an archive", "unpack it")
ARRAY = Kind("a NumPy array", "load it with numpy.load, and give the array to sdist.edit")
TENSORS = Kind("a file of tensors", f"decode them to a picture, and {CONVERT}")
DEEP = Kind("a picture of high dynamic range", f"map it to 8 bits, and {CONVERT}")
MEDICAL = Kind("a DICOM file", f"export the slice, and {CONVERT}")
LAYERS = Kind("a drawing program's own file", "export it as PNG")
SIDECAR = Kind("what macOS keeps beside a file (._NAME)", "give the file itself")
TEXT = Kind("a text file", "give a picture")
ZEROS = Kind("a file of zero bytes alone", "download or copy it again")

BRANDS = {  # of the ISO container: what stands behind "ftyp"
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif"), HEIC),
    **dict.fromkeys((b"avif", b"avis"), AVIF),
    b"crx ": RAW,
    b"jxl ": JXL,
}
PATTERNS: dict[Kind, tuple[bytes, ...]] = {  # that such a file begins with
    JXL: (rb"\xff\x0a", rb"\0\0\0\x0cJXL "),
    RAW: (rb"II\*\0.{4}CR", rb"II(RO|RS|U\0)", rb"MMOR", rb"FUJIFILMCCD-RAW", rb"FOVb", rb"\0MRM"),
    VIDEO: (rb"\x1aE\xdf\xa3", rb"RIFF.{4}AVI ", rb"\0\0\x01[\xb3\xba]", rb"FLV\x01"),
    POINTER: (rb"version https://git-lfs",),
    ANNEX: (rb"/?(\.\./)*(\.git)?/?annex/objects/",),
    PAGE: (rb"(?i)\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body|script|meta|title)\b", rb"(?i)\s*<\?xml.{0,300}<html"),
    DRAWING: (rb"(?i)\s*(<\?xml.*?\?>\s*)?(<!--.*?-->\s*)*(<!doctype svg.*?>\s*)?<svg\b",),
    ANSWER: (rb"\s*<\?xml", rb"\s*[{\[]\s*[\"{\[\]}]", rb"\s*<[A-Za-z]"),
    DOCUMENT: (rb"%PDF", rb"%!PS", rb"\xc5\xd0\xd3\xc6"),
    ARCHIVE: (
        rb"PK[\x03\x05]",
        rb"\x1f\x8b",
        rb"BZh",
        rb"\xfd7zXZ",
        rb"7z\xbc\xaf",
        rb"Rar!",
        rb"\x28\xb5\x2f\xfd",
        rb".{257}ustar",
    ),
    ARRAY: (rb"\x93NUMPY",),
    TENSORS: (rb"\x80[\x02-\x05]", rb".{8}\{\"", rb"\x89HDF"),
    DEEP: (rb"v/1\x01", rb"#\?(RADIANCE|RGBE)"),
    MEDICAL: (rb".{128}DICM",),
    LAYERS: (rb"gimp xcf", rb"AFFD", rb"\0\xffKA"),
    SIDECAR: (rb"\0\x05\x16\x07",),
    ZEROS: (rb"\0+\Z",),
}
PICTURES = {  # that Pillow reads: one that it does not is damaged
    b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF",
    b"8BPS": "PSD", b"\0\0\x01\0": "ICO", b"\0\0\0\x0cjP  ": "JPEG 2000", b"P6": "PPM", b"P5": "PGM",
}  # fmt: skip


def foreign_kind(head: bytes) -> Kind | None:
    """The kind of a file that is no image here, by its first HEAD bytes; None for one that is, or that is not known."""
    if head[4:8] == b"ftyp":
        brands = [head[i : i + 4] for i in (8, *range(16, min(len(head), 64), 4))]
        return next((BRANDS[brand] for brand in brands if brand in BRANDS), VIDEO)
    plain = head.removeprefix(b"\xef\xbb\xbf")
    kind = next((kind for kind, patterns in PATTERNS.items() if any(re.match(p, plain, re.DOTALL) for p in patterns)), None)
    return kind or (TEXT if _is_text(head) and image_kind(head) is None else None)


def image_kind(head: bytes) -> str | None:
    """The name of the image format that a file begins as."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return next((name for magic, name in PICTURES.items() if head.startswith(magic)), None)


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", errors="strict")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # the last character may be cut
            return False
        text = head[: error.start].decode("utf-8", errors="replace")
    return all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text)
