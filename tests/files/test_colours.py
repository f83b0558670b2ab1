"""Colours and greys of files: profiles are used, wide ranges scaled by a rule that is said, black pictures are said."""

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from sdist.errors import UserError
from sdist.files.images import read_image

ADOBE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))  # XYZ of its primaries for D50
COLOUR = (60, 180, 75)


def profile(space: bytes = b"RGB ", gamma: float = 563 / 256) -> bytes:
    """A version 2 profile: Adobe RGB's primaries or a grey, and one gamma."""

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(x * 65536)) for x in values)

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    described = b"desc" + bytes(4) + struct.pack(">I", 5) + b"wide\0" + bytes(79)
    tags = {
        b"desc": described + bytes(-len(described) % 4),
        b"cprt": b"text" + bytes(4) + b"none",
        b"wtpt": xyz((0.9642, 1, 0.8249)),
    }
    if space == b"RGB ":
        tags |= {c + b"XYZ": xyz(v) for c, v in zip((b"r", b"g", b"b"), ADOBE, strict=True)}
        tags |= {c + b"TRC": curve for c in (b"r", b"g", b"b")}
    else:
        tags |= {b"kTRC": curve}
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x02100000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", *(round(x * 65536) for x in (0.9642, 1, 0.8249)))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def in_srgb(image: Image.Image, data: bytes) -> tuple[int, ...]:
    srgb = ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, BytesIO(data), srgb, outputMode="RGB").getpixel((2, 2))


@pytest.mark.parametrize("end", ["png", "jpg", "tif", "webp"])
def test_a_profile_is_converted_to_srgb(tmp_path: Path, end: str) -> None:
    path, image = tmp_path / f"a.{end}", Image.new("RGB", (16, 16), COLOUR)
    image.save(path, icc_profile=profile(), quality=100, lossless=True)
    read = read_image(path)
    wanted = in_srgb(image, profile())
    assert max(abs(a - b) for a, b in zip(read.image.getpixel((2, 2)), wanted, strict=True)) <= 3
    assert max(abs(a - b) for a, b in zip(wanted, COLOUR, strict=True)) > 20
    assert read.notes == ["colours converted from its profile 'wide' to sRGB"]
    assert read_image(path, plain=True).notes == []


def test_alpha_palette_and_grey_are_converted_too(tmp_path: Path) -> None:
    wanted = in_srgb(Image.new("RGB", (4, 4), COLOUR), profile())
    Image.new("RGBA", (4, 4), (*COLOUR, 255)).save(tmp_path / "a.png", icc_profile=profile())
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, *COLOUR])
    palette.save(tmp_path / "p.png", icc_profile=profile())
    for name in ("a.png", "p.png"):
        assert read_image(tmp_path / name).image.getpixel((2, 2)) == wanted
    grey = Image.new("L", (4, 4), 100)
    grey.save(tmp_path / "g.png", icc_profile=profile(b"GRAY", 1.0))
    assert read_image(tmp_path / "g.png").image.getpixel((2, 2)) == in_srgb(grey, profile(b"GRAY", 1.0))
    half = Image.new("RGBA", (4, 4), (*COLOUR, 0))
    half.save(tmp_path / "h.png", icc_profile=profile())
    assert read_image(tmp_path / "h.png").image.getpixel((2, 2)) == (255, 255, 255)


def test_srgb_itself_changes_no_pixel_and_is_not_said(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=data)
    read = read_image(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read.image), pixels)
    assert read.notes == read.faults == []


@pytest.mark.parametrize("data", [b"junk", profile()[:200], profile(b"GRAY"), b"\0" * 128])
def test_a_profile_that_cannot_be_used_is_said_and_left_out(tmp_path: Path, data: bytes) -> None:
    Image.new("RGB", (4, 4), COLOUR).save(tmp_path / "a.png", icc_profile=data)
    read = read_image(tmp_path / "a.png")
    assert read.image.getpixel((2, 2)) == COLOUR
    assert [fault.startswith("its colour profile cannot be used (") for fault in read.faults] == [True]


def test_adobe_rgb_by_exif_alone_is_said(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R03"}
    Image.new("RGB", (4, 4), COLOUR).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").faults == ["EXIF says Adobe RGB, without a profile: colours are taken as sRGB"]


def test_an_image_that_is_transparent_everywhere_is_seen_all_the_same(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(20, 256, (8, 8, 4), np.uint8)
    pixels[..., 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read.image), pixels[..., :3])
    assert read.faults == ["transparent everywhere: its transparency is left out"]


GREYS = [  # (values of a file, its type, the grey that is read, what is white)
    (200 * 256, np.uint16, 199, 65535),
    (200 * 16, np.uint16, 199, 4095),
    (200 * 64, np.uint16, 199, 16383),
    (200 * 4, np.uint16, 199, 1023),
    (200, np.uint16, 200, 255),
    (200, np.int32, 200, 255),
    (51400, np.int32, 200, 65535),
    (0.5, np.float32, 128, 1),
]


@pytest.mark.parametrize(("value", "kind", "grey", "white"), GREYS)
def test_wide_greys_are_scaled_by_a_rule_that_is_said(tmp_path: Path, value: float, kind: type, grey: int, white: int) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.full((4, 4), value, kind)).save(path)
    read = read_image(path)
    assert read.image.getpixel((2, 2)) == (grey,) * 3
    assert read.notes[0].endswith(f": {white} is white")


@pytest.mark.parametrize(
    "values", [np.float32(np.nan), np.float32(np.inf), np.float32(7), np.float32(-1), np.int32(-5), np.int32(70000)]
)
def test_greys_that_no_rule_covers_are_refused(tmp_path: Path, values: np.generic) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.full((4, 4), values)).save(path)
    with pytest.raises(UserError, match=r"a\.tif has values [^\n]*8 bits$"):
        read_image(path)


def test_nearly_black_is_said(tmp_path: Path) -> None:
    for top, said in ((15, True), (0, True), (16, False)):
        Image.new("RGB", (4, 4), (top, 0, 0)).save(tmp_path / "a.png")
        assert read_image(tmp_path / "a.png").faults == [f"nearly black: its largest value is {top} of 255"] * said
