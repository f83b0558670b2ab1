"""What is no picture, or a damaged one, is named by what it is, in one line that says what to do."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from sdist.errors import UserError
from sdist.files.images import load_image, read_image
from sdist.files.opening import image_size

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 36, 3), np.uint8))


def container(brand: bytes, *others: bytes) -> bytes:
    return struct.pack(">I", 16 + 4 * len(others)) + b"ftyp" + brand + bytes(4) + b"".join(others) + bytes(300)


def encoded(kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    NOISE.save(buffer, kind, **options)
    return buffer.getvalue()


OTHERS = {
    "HEIC": container(b"heic", b"mif1"),
    "HEIC photo": container(b"mif1", b"heic"),
    "AVIF": container(b"avif", b"mif1"),
    "raw": container(b"crx ", b"isom"),
    "camera's raw": b"II*\0\x10\0\0\0CR\x02\0" + bytes(200),
    "raw file": b"FUJIFILMCCD-RAW 0201" + bytes(200),
    "JPEG XL": b"\xff\x0a" + bytes(50),
    "JPEG XL picture": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50),
    "video": container(b"isom", b"mp42"),
    "web page": b"<!doctype html><html><body>not found</body></html>",
    "a web page": b"\xef\xbb\xbf\n  <HTML lang=en>",
    "server's answer": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "a server's answer": b'{"error": "not found"}',
    "SVG": b'<?xml version="1.0"?>\n<!-- x --><svg xmlns="http://www.w3.org/2000/svg"/>',
    "LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
    "git-annex": b"/annex/objects/SHA256E-s12--0.png\n",
    "document": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "archive": b"PK\x03\x04" + bytes(60),
    "NumPy": b"\x93NUMPY\x01\0v\0{'descr'",
    "tensors": b'\x40\0\0\0\0\0\0\0{"weight":{"dtype":"F32"}}',
    "high dynamic range": b"v/1\x01\x02\0\0\0",
    "DICOM": bytes(128) + b"DICM\x02\0",
    "drawing program": b"gimp xcf file\0",
    "macOS": b"\0\x05\x16\x07\0\x02\0\0Mac OS X" + bytes(50),
    "text file": b"not a picture",
    "zero bytes": bytes(5000),
    "not an image that Pillow can read": bytes(range(200, 256)) * 3,
}


@pytest.fixture(autouse=True)
def without_avif(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a Pillow that cannot read AVIF, for the file that only begins as one."""
    if request.node.name.startswith("test_a_file_of_another_kind"):
        monkeypatch.setattr("PIL.features.modules", {})


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("end", [".png", ".jpg"])
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str, end: str) -> None:
    path = tmp_path / f"photo{end}"
    path.write_bytes(OTHERS[name])
    for read in (load_image, image_size):
        with pytest.raises(UserError, match=rf"photo\{end} is [^\n]*{name}[^\n]*[:;] [^\n]+$"):
            read(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "AVIF"])
@pytest.mark.parametrize("part", [0.1, 0.6])
def test_a_cut_picture_is_named_by_its_format(tmp_path: Path, kind: str, part: float) -> None:
    data, name = encoded(kind), {"WEBP": "WebP", "JPEG2000": "JPEG 2000"}.get(kind, kind)
    (tmp_path / "a.img").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(UserError, match=rf"begins as {name}, and is cut short[^\n]*; copy it again"):
        load_image(tmp_path / "a.img")


def test_empty_missing_and_dangling_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    for name, message in {
        "empty.png": "0 bytes",
        "link.png": "leads to a file that is not there",
        "no.png": "does not exist",
    }.items():
        with pytest.raises(UserError, match=message):
            load_image(tmp_path / name)


def test_a_camera_raw_that_pillow_takes_for_a_small_tiff_is_refused(tmp_path: Path) -> None:
    small = NOISE.resize((16, 12))
    small.save(tmp_path / "a.nef", "TIFF")
    small.save(tmp_path / "a.tif", "TIFF", tiffinfo={50706: b"\1\4\0\0"})
    for name in ("a.nef", "a.tif"):
        with pytest.raises(UserError, match=r"camera's raw file.*preview.*develop it"):
            load_image(tmp_path / name)


def chunk(name: bytes, data: bytes, crc: int | None = None) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) if crc is None else crc)


CHUNKS = {
    "a text that inflates": chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5_000_000))),
    "a long international text": chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"x" * 5_000_000)),
    "many texts": chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 70,
    "a damaged text": chunk(b"zTXt", b"a\0\0junk"),
    "a text of another compression": chunk(b"zTXt", b"a\0\7junk"),
    "a wrong checksum": chunk(b"tEXt", b"a\0b", crc=1),
    "a damaged profile": chunk(b"iCCP", b"x\0\0junk"),
    "a profile of another compression": chunk(b"iCCP", b"x\0\7" + zlib.compress(b"junk")),
    "a short gamma": chunk(b"gAMA", b"\0"),
    "short chromaticities": chunk(b"cHRM", b"\0\0\0"),
    "a short sRGB": chunk(b"sRGB", b""),
    "damaged EXIF": chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff" + b"\xff" * 20),
    "short EXIF": chunk(b"eXIf", b"M"),
    "a short resolution": chunk(b"pHYs", b"\0\0"),
    "a short animation": chunk(b"acTL", b"\0"),
}


@pytest.mark.parametrize("name", CHUNKS)
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_png_is_read_whatever_its_other_chunks_hold(tmp_path: Path, name: str, place: str) -> None:
    data = encoded("PNG")
    at = 33 if place == "before" else len(data) - 12  # behind the header, or before the end
    (tmp_path / "a.png").write_bytes(data[:at] + CHUNKS[name] + data[at:])
    assert image_size(tmp_path / "a.png") == NOISE.size
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png")), np.asarray(NOISE))


def test_orientation_and_profile_survive_a_text_that_is_too_large(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = encoded("PNG", exif=exif)
    (tmp_path / "a.png").write_bytes(data[:33] + CHUNKS["a text that inflates"] + data[33:])
    read = read_image(tmp_path / "a.png")
    assert read.image.size == image_size(tmp_path / "a.png") == NOISE.size[::-1]
    assert "left out" in read.faults[0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "a PNG with EXIF behind its pixels"])
def test_the_size_before_the_pixels_are_read_is_that_of_the_upright_image(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    if kind.startswith("a PNG"):
        data = encoded("PNG")
        data = data[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[-12:]
    else:
        data = encoded(kind, exif=exif)
    (tmp_path / "a").write_bytes(data)
    assert image_size(tmp_path / "a") == load_image(tmp_path / "a").size == NOISE.size[::-1]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_damaged_exif_is_left_out(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(encoded(kind, **({} if kind == "TIFF" else {"exif": b"Exif\0\0MM\0*\xff\xff\xff\xff\xff"})))
    assert load_image(tmp_path / "a").size == image_size(tmp_path / "a") == NOISE.size


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP", "MPO", "AVIF"])
def test_of_several_frames_the_first_is_read_and_that_is_said(tmp_path: Path, kind: str) -> None:
    red, blue = Image.new("RGB", (64, 64), (200, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 200))
    red.save(tmp_path / "a", kind, save_all=True, append_images=[blue, red])
    read = read_image(tmp_path / "a")
    assert read.image.getpixel((5, 5))[0] > 190
    assert any("the first of" in note for note in read.notes)
