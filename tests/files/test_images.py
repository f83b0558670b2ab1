"""Every kind of picture file works or is refused with a reason; files are written whole or not at all."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdist.errors import UserError
from sdist.files import opening
from sdist.files.images import fit, load_image, panel, png_bytes, to_images, to_pixels
from sdist.files.storage import write_atomic

RED = np.zeros((12, 20, 3), np.uint8) + np.array([200, 30, 10], np.uint8)


def test_pixels_round_trip() -> None:
    values = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3), np.uint8)
    pictures = [Image.fromarray(v) for v in values]
    pixels = to_pixels(pictures)
    assert pixels.shape == (2, 3, 8, 6)
    assert pixels.min() >= -1
    assert pixels.max() <= 1
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(to_images(pixels), pictures, strict=True))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I;16", "YCbCr"])
def test_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(RED)
    picture = Image.fromarray(np.full((12, 20), 40000, np.uint16)) if mode == "I;16" else picture.convert(mode)
    path = tmp_path / f"x.{'tif' if mode in ('CMYK', 'I;16') else 'jpg' if mode == 'YCbCr' else 'png'}"
    picture.save(path)
    loaded = load_image(path)
    assert loaded.mode == "RGB"
    assert loaded.size == (20, 12)
    if mode in ("RGB", "RGBA", "CMYK"):
        assert np.abs(np.asarray(loaded, int) - RED).max() <= 2
    if mode == "I;16":
        assert np.asarray(loaded)[0, 0].tolist() == [156] * 3


def test_transparency_is_put_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "x.png")
    assert np.asarray(load_image(tmp_path / "x.png")).min() == 255
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0] * 256)
    palette.save(tmp_path / "p.png", transparency=0)
    assert np.asarray(load_image(tmp_path / "p.png")).min() == 255


def test_exif_rotation_is_undone(tmp_path: Path) -> None:
    picture = Image.fromarray(RED)
    exif = picture.getexif()
    exif[0x0112] = 6  # rotated by 90 degrees
    picture.save(tmp_path / "x.jpg", exif=exif)
    assert load_image(tmp_path / "x.jpg").size == (12, 20)


def test_files_that_are_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    (tmp_path / "cut.png").write_bytes(png_bytes(Image.fromarray(noise))[:2000])
    for name, message in {
        "nowhere.png": "does not exist",
        "empty.png": "0 bytes",
        "text.png": "not an image",
        "cut.png": "cannot be read",
        ".": "is not a file",
    }.items():
        with pytest.raises(UserError, match=message):
            load_image(tmp_path / name)
    Image.fromarray(RED).save(tmp_path / "large.png")
    monkeypatch.setattr(opening, "MAX_PIXELS", 100)
    with pytest.raises(UserError, match="20 x 12; at most 100 pixels"):
        load_image(tmp_path / "large.png")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (20000, 20000)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match="pixels"):
        load_image(path)


def test_text_in_a_png_does_not_matter(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("sdist", "{}")
    Image.fromarray(RED).save(tmp_path / "x.png", pnginfo=info)
    assert load_image(tmp_path / "x.png").size == (20, 12)


@pytest.mark.parametrize(
    ("given", "size", "expected"),
    [
        ((128, 128), "native", (128, 128)),
        ((256, 256), "native", (128, 128)),
        ((300, 200), "native", (192, 128)),
        ((100, 175), "native", (128, 224)),
        ((60, 40), "keep", (60, 40)),
        ((61, 43), "keep", (60, 40)),
        ((500, 300), "64x96", (64, 96)),
    ],
)
def test_fit(given: tuple[int, int], size: str, expected: tuple[int, int]) -> None:
    assert fit(Image.new("RGB", given), size, native=128, factor=4).size == expected


@pytest.mark.parametrize(
    ("given", "size", "message"),
    [
        ((2, 2), "keep", "divisible by 4"),
        ((3000, 10), "native", "at most|may have 512"),
        ((64, 64), "10x", "WIDTHxHEIGHT"),
        ((64, 64), "big", "WIDTHxHEIGHT"),
        ((64, 64), "0x0", "divisible by 4"),
        ((64, 64), "9999999999x4", "WIDTHxHEIGHT"),
        ((64, 64), "4000x4000", "may have 512.*--size 512x512"),
        ((64, 64), "70x131", "try --size 68x128"),
        ((524, 345), "keep", "--size 512x336 scales it"),
        ((345, 524), "keep", "--size 336x512 scales it"),
        ((3000, 500), "native", "--size 512x128 scales it"),
    ],
)
def test_sizes_that_do_not_fit(given: tuple[int, int], size: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(Image.new("RGB", given), size, native=128, factor=4)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    write_atomic(path, b"first")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"second")
    assert path.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_a_panel_is_large_enough_to_look_at() -> None:
    assert panel([Image.new("RGB", (64, 32))] * 3).size == (3 * 512 + 8, 256)
