"""What stands for "here" in a mask, in files and arrays of every kind; shapes that are not the image's."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

import sdist
from sdist.errors import UserError
from sdist.files.in_memory import image_file
from sdist.files.masks import check_shape, coverage, read_mask

LEFT = np.zeros((8, 12), bool)
LEFT[:, :6] = True  # may change
WHITE, CLEAR = (LEFT * 255).astype(np.uint8), np.full((8, 12), 255, np.uint8)


def layers(colour: np.ndarray | int, alpha: np.ndarray) -> Image.Image:
    grey = np.broadcast_to(np.asarray(colour, np.uint8)[..., None], (8, 12, 3))
    return Image.fromarray(np.dstack([grey, alpha]))


def palette(colours: list[int], **info: int) -> Image.Image:
    image = Image.fromarray(LEFT.astype(np.uint8), "P")
    image.putpalette(colours)
    image.info.update(info)
    return image


def painted(colour: tuple[int, int, int], ground: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(np.where(LEFT[..., None], colour, ground).astype(np.uint8))


FILES: dict[str, tuple[Image.Image, str]] = {
    "8 bits": (Image.fromarray(WHITE), "luminance"),
    "1 bit": (Image.fromarray(LEFT), "luminance"),
    "0 and 1": (Image.fromarray(LEFT.astype(np.uint8)), "0 and 1"),
    "0 and 1 in colour": (painted((1, 1, 1), (0, 0, 0)), "0 and 1"),
    "labels": (Image.fromarray(LEFT * np.arange(1, 13, dtype=np.uint8)), "7 labels"),
    "16 bits": (Image.fromarray(LEFT * np.uint16(65535)), "65535"),
    "16 bits, 0 and 1": (Image.fromarray(LEFT.astype(np.uint16)), "0 and 1"),
    "16 bits, 0 to 255": (Image.fromarray(LEFT * np.uint16(255)), "luminance"),
    "16 bits, 12 used": (Image.fromarray(LEFT * np.uint16(4095)), "4095"),
    "32 bits": (Image.fromarray(LEFT * np.int32(255)), "luminance"),
    "32 bits, instances": (Image.fromarray(LEFT * np.int32(26001)), "26001"),
    "floats": (Image.fromarray(LEFT.astype(np.float32)), "0 and 1"),
    "floats to 255": (Image.fromarray(LEFT * np.float32(255)), "luminance"),
    "RGB": (Image.fromarray(WHITE).convert("RGB"), "luminance"),
    "white on transparent": (layers(255, WHITE), "alpha"),
    "black on transparent": (layers(0, WHITE), "alpha"),
    "red on transparent": (Image.fromarray(np.dstack([WHITE, 0 * WHITE, 0 * WHITE, WHITE])), "alpha"),
    "grey and alpha": (layers(128, WHITE).convert("LA"), "alpha"),
    "opaque alpha": (layers(WHITE, CLEAR), "luminance"),
    "all transparent, shape in grey": (layers(WHITE, 0 * CLEAR), "luminance"),
    "black and white, right transparent": (layers(WHITE, np.where(np.arange(12) < 9, CLEAR, 0).astype(np.uint8)), "luminance"),
    "transparent grey": (palette([0, 0, 0, 255, 255, 255], transparency=0), "alpha"),
    "grey palette": (palette([0, 0, 0, 255, 255, 255]), "luminance"),
    "palette of colours": (palette([0, 0, 0, 128, 0, 0]), "colours"),
    "blue on black": (painted((0, 0, 255), (0, 0, 0)), "colours"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_mask_file_is_read_by_what_it_holds(tmp_path: Path, name: str) -> None:
    image, rule = FILES[name]
    path = tmp_path / ("mask.tif" if image.mode in ("I", "F") else "mask.png")
    image.save(path)
    read = read_mask(path)
    assert np.array_equal(np.asarray(read.image), WHITE)
    assert len(read.notes) == 1
    assert rule in read.notes[0]


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("white", [1, 255, 20000, 5])
@pytest.mark.parametrize("shape", [(8, 12), (8, 12, 1), (1, 8, 12)])
def test_a_mask_of_numbers_is_read_by_its_numbers(kind: type, white: int, shape: tuple[int, ...]) -> None:
    if white > np.iinfo(kind).max if np.issubdtype(kind, np.integer) else kind is bool and white > 1:
        return
    with image_file((LEFT * np.array(white).astype(kind)).reshape(shape), is_mask=True) as file:
        assert np.array_equal(np.asarray(read_mask(file).image), WHITE)


def test_soft_masks_stay_soft(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 96).reshape(8, 12)
    with image_file(ramp, is_mask=True) as file:
        assert np.abs(np.asarray(read_mask(file).image) / 255 - ramp).max() < 0.003
    Image.fromarray((ramp * 200).astype(np.uint8)).save(tmp_path / "soft.png")
    assert np.asarray(read_mask(tmp_path / "soft.png").image).max() == 200
    layers(255, (ramp * 255).astype(np.uint8)).save(tmp_path / "soft.png")
    assert np.abs(np.asarray(read_mask(tmp_path / "soft.png").image) / 255 - ramp).max() < 0.005


NOT_MASKS = {
    "a picture in colours": painted((200, 30, 10), (20, 200, 90)),
    "red on white": painted((255, 0, 0), (255, 255, 255)),
    "a picture with a hole": Image.fromarray(np.dstack([np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8), WHITE])),
    "not finite": Image.fromarray(LEFT * np.float32(np.nan)),
    "floats beyond 1": Image.fromarray(LEFT * np.float32(1.7)),
    "floats to 200.5": Image.fromarray(LEFT * np.float32(200.5)),
    "negative": Image.fromarray(LEFT * np.int32(-1)),
}


@pytest.mark.parametrize("name", NOT_MASKS)
def test_what_is_no_mask_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / ("mask.tif" if NOT_MASKS[name].mode in ("I", "F") else "mask.png")
    NOT_MASKS[name].save(path)
    with pytest.raises(
        UserError, match=rf"^mask {re.escape(str(path))} (is a picture in colours.*|has .*): .*(white|255)[^\n]*$"
    ):
        read_mask(path)


@pytest.mark.parametrize(
    ("mask", "image", "hint"),
    [
        ((192, 128), (128, 192), "turn it by 90"),
        ((101, 100), (100, 101), "turn it by 90"),
        ((512, 512), (640, 480), "of the image's shape"),
        ((4, 3), (3, 4), "turn it by 90"),
        ((640, 360), (640, 480), "of the image's shape"),
        ((384, 512), (640, 480), "turn it by 90"),
    ],
)
def test_a_mask_of_another_shape_is_refused_with_both_sizes(mask: tuple[int, int], image: tuple[int, int], hint: str) -> None:
    sizes = f"mask m.png is {mask[0]} x {mask[1]}, its image a.png {image[0]} x {image[1]}"
    with pytest.raises(UserError, match=f"{sizes}, both upright: .*{hint}"):
        check_shape(mask, image, "m.png", "a.png")


@pytest.mark.parametrize(
    ("mask", "image"),
    [((8, 8), (8, 8)), ((512, 384), (4000, 3000)), ((342, 512), (667, 1000)), ((1000, 664), (1000, 667)), ((1, 1), (9, 9))],
)
def test_a_mask_of_another_size_and_the_same_shape_is_taken(mask: tuple[int, int], image: tuple[int, int]) -> None:
    check_shape(mask, image, "m.png", "a.png")


@pytest.mark.parametrize("turned", [1, 3, 6, 8])
@pytest.mark.parametrize("both", [True, False])
def test_image_and_mask_are_both_turned_by_exif(tmp_path: Path, tiny_folder: Path, turned: int, both: bool) -> None:
    """A mask that is stored as the image is, and one that is stored upright."""
    back = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[turned]
    upright = Image.fromarray(np.repeat(np.repeat(WHITE, 4, 0), 4, 1))
    stored = upright if back is None else upright.transpose(back)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turned
    stored.convert("RGB").save(tmp_path / "photo.jpg", exif=exif, quality=100)
    (stored if both else upright).save(tmp_path / "mask.png", **({"exif": exif} if both else {}))
    result = sdist.edit(
        tmp_path / "photo.jpg", "a cat", "a dog", mask=tmp_path / "mask.png", model=str(tiny_folder), steps=1, size="keep",
        settings={"regularizers": {"attention_mask": None, "user_mask": {}}},
    )  # fmt: skip
    assert result.image.size == upright.size
    assert np.array_equal(np.asarray(result.prepared.mask), np.asarray(upright))


def test_the_rule_and_the_part_are_said_once_and_stand_on_the_card(
    tmp_path: Path, tiny_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sdist")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    layers(0, WHITE).save(tmp_path / "mask.png")

    def edit(mask: Path | np.ndarray) -> sdist.Result:
        caplog.clear()
        return sdist.edit(tmp_path / "a.png", "a cat", "a dog", mask=mask, model=str(tiny_folder), steps=1)

    first = edit(tmp_path / "mask.png")
    card = first.card
    said = [line for line in caplog.messages if line.startswith(("a.png", "mask"))]
    assert said == [
        "a.png: 60 x 40 pixels are scaled to 48 x 32",
        "mask.png: by alpha: what is painted may change; 12 x 8 pixels are scaled to 48 x 32",
        "mask mask.png: 50% of the image may change",
        "a.png: the mask follows dog",
        said[-1],
    ]
    outside = np.abs(np.asarray(first.image, float) - np.asarray(first.prepared.image))[np.asarray(first.prepared.mask) < 128]
    assert said[-1].startswith(f"a.png: outside the mask values moved by {outside.mean():.1f} of 255 on average")
    assert card["read"] == {"image": [said[0].partition(": ")[2]], "mask": said[1].partition(": ")[2].split("; ")}
    edit(np.ones((8, 12), bool))
    assert "mask given as ndarray: 100% of the image may change" in caplog.messages
    assert "mask given as ndarray: by luminance: white may change; 12 x 8 pixels are scaled to 48 x 32" in caplog.messages
    with pytest.raises(UserError, match=r"^mask given as ndarray is empty: nothing in the image may change; white is where"):
        edit(np.zeros((8, 12), bool))


def test_small_parts_are_not_called_none() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[0, 0] = 255
    assert coverage(Image.fromarray(mask)).startswith("less than 1%")
    assert coverage(Image.fromarray(0 * mask)).startswith("0%")


def test_what_is_no_array_of_a_mask_is_named() -> None:
    wrong: dict[str, Callable[[], object]] = {
        "got 2 x 8 x 12 of float64": lambda: np.zeros((2, 8, 12)),
        "no pixels": lambda: np.zeros((0, 4)),
        "of complex128": lambda: np.zeros((4, 4), complex),
    }
    for message, make in wrong.items():
        with pytest.raises(UserError, match=message), image_file(make(), is_mask=True):
            pass


def test_a_mask_is_decoded_once_until_its_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.new("L", (4, 4), 255).save(path)
    first = read_mask(path)
    assert read_mask(path) is first
    Image.new("L", (5, 4), 255).save(path)
    assert read_mask(path).image.size == (5, 4)
