"""The studio without a browser: pictures of a visitor, and what is painted on them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdist.errors import UserError
from sdist.studio.page import paintable, painted
from sdist.studio.visitor import Visitor, harmless

from .samples import work_of


def test_a_visitor_keeps_pictures_by_content(visitor: Visitor, picture: Path) -> None:
    first = visitor.take(picture, "../../a photo.PNG")
    assert first.name == "a_photo.PNG"
    assert first.is_relative_to(visitor.folder)
    assert visitor.take(picture, "again.png") == first
    visitor.work = work_of()
    visitor.close()
    assert visitor.work.stop.is_set()
    assert not visitor.folder.exists()


@pytest.mark.parametrize("name", ["", "..", "a/b\\c.png", "<b>.png", "ü" * 300 + ".jpeg"])
def test_names_are_harmless(name: str) -> None:
    assert all(c.isalnum() or c in "-_." for c in harmless(name))
    assert 3 < len(harmless(name)) <= 60


def test_bad_pictures_are_named_without_our_folders(visitor: Visitor, tmp_path: Path) -> None:
    text = tmp_path / "photo.png"
    text.write_text("not a picture")
    with pytest.raises(UserError, match=r"^image cat\.png is a text file, not an image that can be read: give a picture$"):
        visitor.take(text, "cat.png")
    Image.new("1", (9000, 9000)).save(text)
    with pytest.raises(UserError, match=r"^image cat\.png is 9000 x 9000; at most"):
        visitor.take(text, "cat.png")


def test_what_is_painted_is_the_mask() -> None:
    value = paintable(Image.new("RGB", (64, 32)))
    assert value["background"].size == (1024, 512)
    assert painted(None) is None
    assert painted(value) is None
    layer = Image.new("RGBA", (1024, 512))
    layer.paste((232, 89, 12, 255), (0, 0, 512, 512))
    mask = painted({**value, "layers": [layer]})
    assert np.asarray(mask)[:, :512].min() == 255
    assert np.asarray(mask)[:, 512:].max() == 0
    again = painted(paintable(Image.new("RGB", (64, 32)), mask))
    assert np.array_equal(np.asarray(again), np.asarray(mask))
