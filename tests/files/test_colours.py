"""Colours and greys of files: profiles are used, wide ranges scaled by a rule that is said, black pictures are said."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from sdist.errors import UserError
from sdist.files.images import read_image
from sdist.files.in_memory import image_file
from sdist.files.masks import read_mask

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


# --- chunks of a PNG without a profile -------------------------------------------------------------------------------------

LINEAR, SRGB_GAMMA = (b"gAMA", struct.pack(">I", 100_000)), (b"gAMA", struct.pack(">I", 45_455))
SRGB, P3, PQ = (b"sRGB", b"\0"), (b"cICP", bytes([12, 13, 0, 1])), (b"cICP", bytes([9, 16, 0, 1]))
SRGB_PRIMARIES = (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
P3_PRIMARIES = (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
ADOBE_PROFILE = (b"iCCP", b"wide\0\0" + zlib.compress(profile()))
TAKEN = "colours are taken as sRGB"


def png(path: Path, values: np.ndarray, *chunks: tuple[bytes, bytes]) -> Path:
    """A PNG of 8 or 16 bits, (h, w) or (h, w, channels), with these chunks before its pixels."""
    kind = {2: 0, 3: {2: 4, 3: 2, 4: 6}.get(values.shape[-1])}[values.ndim]
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 8 * values.itemsize, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in values)
    every = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in every]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


GREYS = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
    ("chunks", "faults"),
    [
        ([], []),
        ([SRGB], []),
        ([SRGB_GAMMA], []),
        ([SRGB_GAMMA, SRGB_PRIMARIES], []),
        ([SRGB, LINEAR, P3_PRIMARIES], []),
        ([(b"cICP", bytes([1, 13, 0, 1])), LINEAR], []),
        ([P3], [f"its cICP says primaries 12, transfer 13, which are not sRGB's (1, 13): {TAKEN}"]),
        ([PQ, SRGB], [f"its cICP says primaries 9, transfer 16, which are not sRGB's (1, 13): {TAKEN}"]),
        ([(b"cICP", b"\1")], [f"its cICP says nothing that can be read, which are not sRGB's (1, 13): {TAKEN}"]),
        ([P3_PRIMARIES], [f"its cHRM says other primaries than sRGB's: {TAKEN}"]),
        ([SRGB_GAMMA, P3_PRIMARIES], [f"its cHRM says other primaries than sRGB's: {TAKEN}"]),
        ([(b"gAMA", bytes(4))], [f"its gAMA is 0, which means nothing: {TAKEN}"]),
    ],
)
def test_values_stay_where_they_are_srgb_or_nothing_better_is_known(tmp_path: Path, chunks: list, faults: list[str]) -> None:
    for values in (GREYS, np.stack([GREYS, GREYS.T, GREYS[::-1]], -1)):
        read = read_image(png(tmp_path / "a.png", values, *chunks))
        expected = values if values.ndim == 3 else np.stack([values] * 3, -1)
        assert np.array_equal(np.asarray(read.image), expected)
        assert (read.notes, read.faults) == ([], faults)


@pytest.mark.parametrize("gamma", [1.0, 0.55556, 2.2])
def test_another_gamma_is_converted_and_said(tmp_path: Path, gamma: float) -> None:
    chunk = (b"gAMA", struct.pack(">I", round(gamma * 1e5)))
    path = png(tmp_path / "a.png", GREYS, chunk)
    light = (GREYS / 255) ** (1 / gamma)
    expected = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    for source in (path, png(tmp_path / "b.png", np.stack([GREYS, np.full_like(GREYS, 255)], -1), chunk)):
        read = read_image(source)
        assert np.abs(np.asarray(read.image)[..., 0] - expected).max() <= 0.51
        assert read.notes == [f"colours converted from its gamma (gAMA {gamma:g}) to sRGB"]
    assert np.array_equal(np.asarray(read_image(path, plain=True).image)[..., 0], GREYS)
    deep = read_image(png(tmp_path / "c.png", GREYS.astype(np.uint16) * 257, chunk))
    assert np.array_equal(np.asarray(deep.image), np.asarray(read_image(path).image))


def test_a_profile_comes_before_the_other_chunks(tmp_path: Path) -> None:
    values = np.full((4, 4, 3), COLOUR, np.uint8)
    expected = read_image(png(tmp_path / "a.png", values, ADOBE_PROFILE))
    assert expected.notes == ["colours converted from its profile 'wide' to sRGB"]
    assert read_image(png(tmp_path / "b.png", values, PQ, ADOBE_PROFILE, LINEAR)).image.tobytes() == expected.image.tobytes()


@pytest.mark.parametrize("chunks", [[LINEAR], [LINEAR, SRGB], [P3_PRIMARIES], [PQ], [(b"tRNS", bytes([0, 7]))], [LINEAR, P3]])
def test_an_image_in_memory_is_read_as_its_file(tmp_path: Path, chunks: list) -> None:
    path = png(tmp_path / "a.png", GREYS, *chunks)
    with Image.open(path) as image, image_file(image) as file:
        given, expected = read_image(file), read_image(path)
        assert given.image.tobytes() == expected.image.tobytes()
        assert (given.notes, given.faults) == (expected.notes, expected.faults)


def test_what_was_converted_once_is_not_again(tmp_path: Path) -> None:
    once = read_image(png(tmp_path / "a.png", GREYS, LINEAR)).image
    with image_file(once) as file:
        assert read_image(file).image.tobytes() == once.tobytes()


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_transparent_colour_of_a_png_is_put_on_white(tmp_path: Path, channels: int, deep: bool) -> None:
    values = np.stack([GREYS] * 3, -1) if channels == 3 else GREYS
    values = values.astype(np.uint16) * 257 if deep else values
    key = struct.pack(">H", 200 * (257 if deep else 1)) * channels
    path = png(tmp_path / "a.png", values, (b"tRNS", key))
    expected = np.where(GREYS == 200, 255, GREYS)
    with Image.open(path) as image, image_file(image) as in_memory:
        for file in (path, in_memory):
            read = read_image(file)
            assert np.array_equal(np.asarray(read.image)[..., 0], expected)
            assert read.notes[-1] == "transparent areas are put on white"


def test_a_transparent_colour_of_16_bits_is_no_other_one(tmp_path: Path) -> None:
    values = np.full((2, 2, 3), 0x2020, np.uint16)
    values[0, 0] = 0x2A60  # whose lower bits Pillow would take
    read = read_image(png(tmp_path / "a.png", values, (b"tRNS", struct.pack(">HHH", 0x6020, 0x6020, 0x6020))))
    assert (np.asarray(read.image) < 64).all()
    assert read.notes == []


@pytest.mark.parametrize("deep", [False, True])
def test_a_mask_with_a_transparent_grey_is_read_by_alpha(tmp_path: Path, deep: bool) -> None:
    values = np.full((16, 16), 255, np.uint8)
    values[:8] = 9
    values = values.astype(np.uint16) * 257 if deep else values
    read = read_mask(png(tmp_path / "a.png", values, (b"tRNS", struct.pack(">H", int(values[0, 0])))))
    assert np.asarray(read.image)[:, 0].tolist() == [0] * 8 + [255] * 8
    assert read.notes == ["by alpha: what is painted may change"]
