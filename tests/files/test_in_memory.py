"""What code gives as a picture is taken, or refused by the name of its type."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms

from sdist.errors import UserError
from sdist.files.images import load_image, read_image
from sdist.files.in_memory import image_file
from sdist.files.paths import image_path

PIXELS = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
IMAGE = Image.fromarray(PIXELS)


def png() -> bytes:
    buffer = io.BytesIO()
    IMAGE.save(buffer, "PNG")
    return buffer.getvalue()


class Named:
    """A path as other libraries have it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


TAKEN: dict[str, Callable[[Path], Any]] = {
    "a string": str,
    "a path": lambda path: path,
    "something with __fspath__": Named,
    "a file: URL": lambda path: path.as_uri(),
    "a file: URL of this host": lambda path: path.as_uri().replace("file://", "file://localhost"),
    "a short file: URL": lambda path: path.as_uri().replace("file://", "file:"),
    "a PIL image": lambda path: IMAGE,
    "an open PIL image": Image.open,
    "an array": lambda path: PIXELS,
    "an array with alpha": lambda path: np.dstack([PIXELS, np.full((8, 12), 255, np.uint8)]),
    "a strided array": lambda path: np.flipud(np.flipud(PIXELS)),
    "bytes": lambda path: path.read_bytes(),
    "a bytearray": lambda path: bytearray(path.read_bytes()),
    "a memoryview": lambda path: memoryview(path.read_bytes()),
    "a buffer": lambda path: io.BytesIO(path.read_bytes()),
    "an open file": lambda path: path.open("rb"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_pictures_are_taken_as_they_come(tmp_path: Path, name: str) -> None:
    path = tmp_path / "ein Bild #1.png"
    path.write_bytes(png())
    with image_file(TAKEN[name](path)) as file:
        assert np.array_equal(np.asarray(load_image(file)), PIXELS)


def test_grey_of_16_bits_in_the_other_order_of_bytes_keeps_its_values() -> None:
    ramp = np.arange(0, 65536, 257, dtype=np.uint16)[None].repeat(8, 0)
    given = [Image.fromarray(ramp), Image.frombytes("I;16B", (256, 8), ramp.astype(">u2").tobytes())]
    assert [image.mode for image in given] == ["I;16", "I;16B"]
    found = []
    for image in given:
        with image_file(image) as file:
            found.append(np.asarray(load_image(file)))
    assert np.array_equal(*found)
    assert found[0].mean() == 127.5


def test_a_buffer_is_read_from_its_beginning() -> None:
    buffer = io.BytesIO()
    IMAGE.save(buffer, "PNG")
    with image_file(buffer) as file:
        assert load_image(file).size == (12, 8)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "F", "I", "I;16"]
)
def test_pil_images_of_every_mode_are_taken(mode: str) -> None:
    if mode == "LAB":
        lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        image = ImageCms.applyTransform(IMAGE, lab)
    elif mode == "F":
        image = Image.fromarray(np.asarray(IMAGE.convert("L"), np.float32) / 255)
    elif mode in ("I", "I;16"):
        image = Image.fromarray(np.asarray(IMAGE.convert("L")).astype(np.int32 if mode == "I" else np.uint16) * 257)
    else:
        steps = {"La": ("LA", "La"), "PA": ("P", "PA"), "RGBa": ("RGBA", "RGBa")}.get(mode, (mode,))
        image = IMAGE
        for step in steps:
            image = image.convert(step)
    assert image is not None
    assert image.mode == mode
    grey = {"La": "L", "LA": "L", "F": "L", "I": "L", "I;16": "L", "PA": "P"}
    wanted = np.asarray(IMAGE.convert(grey.get(mode, mode if mode in ("1", "L", "P") else "RGB")).convert("RGB"), int)
    with image_file(image) as file:
        read = np.asarray(load_image(file), int)
    assert read.shape == (8, 12, 3)
    tolerance = {"YCbCr": 3, "HSV": 8, "CMYK": 2, "LAB": 25}.get(mode, 1)
    assert np.abs(read - wanted).max() <= tolerance


def closed() -> Image.Image:
    image = Image.open(io.BytesIO(png()))
    image.close()
    return image


def shut() -> io.BytesIO:
    buffer = io.BytesIO(png())
    buffer.close()
    return buffer


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a URL": (lambda: "https://127.0.0.1:9/a.png", "is a URL: download it first"),
    "a URL of a store": (lambda: "s3://bucket/a.png", "is a URL: download it first"),
    "a data: URL": (lambda: "data:image/png;base64,iVBORw0KGgo=", "is a data: URL: decode it"),
    "a file of another host": (lambda: "file://server/a.png", "is on another machine"),
    "a tensor": (lambda: torch.rand(3, 8, 8), "as torch.Tensor; give a path"),
    "a list": (lambda: [IMAGE], "as list; give a path.* one at a time"),
    "a tuple": (lambda: (IMAGE, IMAGE), "as tuple;"),
    "None": (lambda: None, "as NoneType;"),
    "a number": (lambda: 7, "as int;"),
    "a dictionary": (lambda: {"image": IMAGE}, "as dict;"),
    "no bytes": (lambda: b"", "0 bytes"),
    "bytes of a page": (lambda: b"<html>", "given as bytes is a web page"),
    "an empty buffer": (io.BytesIO, "0 bytes"),
    "a closed buffer": (shut, "BytesIO that was given cannot be read"),
    "a file of text": (lambda: io.StringIO("x"), "open as text"),
    "a closed PIL image": (closed, "PIL image that was given cannot be read"),
    "a PIL image without pixels": (lambda: Image.new("RGB", (0, 5)), "has no pixels"),
    "a cut PIL image": (lambda: Image.open(io.BytesIO(png()[:150])), "PIL image that was given cannot be read"),
    "an array of floats": (lambda: np.zeros((8, 8, 3)), "of uint8; got 8 x 8 x 3 of float64"),
    "an array with channels first": (lambda: np.zeros((3, 8, 8), np.uint8), "got 3 x 8 x 8 of uint8; channels come last"),
    "an empty array": (lambda: np.zeros((0, 8, 3), np.uint8), "no pixels"),
    "a batch": (lambda: np.zeros((1, 8, 8, 3), np.uint8), "got 1 x 8 x 8 x 3"),
    "a masked array": (lambda: np.ma.masked_array(np.zeros((8, 8), np.uint8), True), "as numpy.MaskedArray; give"),
    "an array of objects": (lambda: np.array([None]), "got 1 of object"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_is_refused_by_name(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(UserError, match=rf"^[^\n]*{message}[^\n]*$"), image_file(make()) as file:
        load_image(file)


def test_a_file_that_looks_like_a_url_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a:b.png").touch()
    assert image_path("a:b.png") == Path("a:b.png")
    assert image_path("C:\\a.png") == Path("C:\\a.png")


def test_a_pil_image_keeps_its_orientation_and_profile(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    IMAGE.save(tmp_path / "a.png", exif=exif, icc_profile=b"junk")
    with Image.open(tmp_path / "a.png") as image, image_file(image) as file:
        assert load_image(file).size == (8, 12)
        with Image.open(file) as written:
            assert written.info["icc_profile"] == b"junk"


@pytest.mark.parametrize(
    "info",
    [{"gamma": -1.0}, {"gamma": "x"}, {"srgb": None}, {"chromaticity": 3}, {"transparency": b"q"}, {"icc_profile": "text"}],
)
def test_an_info_that_no_file_holds_is_one_line_and_the_advice_works(info: dict) -> None:
    image = Image.new("RGB", (4, 4))
    image.info.update(info)
    said = rf"cannot be written as a PNG, by what its info says \({next(iter(info))}; "
    with pytest.raises(UserError, match=said) as raised, image_file(image):
        pass
    advice = re.search(r": (image\.\S+) leaves the pixels$", str(raised.value))
    assert advice is not None
    eval(advice[1], {"image": image})
    with image_file(image) as file:
        assert read_image(file).image.tobytes() == image.tobytes()
