"""What is wrong with a request is said before a model is loaded for it, by the command and by the function."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sdist
from sdist.cli import main
from sdist.config.build import load_settings
from sdist.editors.request_checks import SUCH_AS
from sdist.errors import UserError

from ..test_cli import error, listed, run_arguments  # noqa: F401

BAD = {
    "a size": (["--size", "3"], "--size 3: size must be native, keep or WIDTHxHEIGHT, got '3'"),
    "a word": (["--method", "lusd", "--words", "dragon"], "unknown word 'dragon' in the target prompt 'a dog'"),
    "words that are not read": (["--method", "dds", "--words", "dog"], "dds reads no words: leave it out, or use"),
    "an instruction": (
        ["--instruction", "add a hat"],
        "localflow reads no instruction: leave it out, or use a method that reads it,",
    ),
    "a mask that is not read": (["--method", "sdedit", "--mask", "WHITE"], "sdedit reads no mask: leave it out, or use"),
    "a word of neither prompt": (["--method", "vimaedit", "--words", "dragon"], "word 'dragon' is in neither prompt"),
    "a mask of another shape": (["--mask", "WIDE"], "its image picture.png 32 x 32"),
    "a mask that is black": (["--mask", "BLACK"], "black.png is empty: nothing in the image may change; white is where"),
}


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdist.editors.loading.ModelCache.get", lambda *_: pytest.fail("a model is loaded"))


@pytest.mark.parametrize("name", BAD)
def test_before_a_model_is_loaded(name: str, picture: Path, tmp_path: Path, no_model: None, capsys) -> None:
    given, message = BAD[name]
    masks = {"WHITE": ((32, 32), 255), "WIDE": ((32, 16), 255), "BLACK": ((32, 32), 0)}
    for mask, (size, value) in masks.items():
        Image.new("L", size, value).save(tmp_path / f"{mask.lower()}.png")
    words = [str(tmp_path / f"{word.lower()}.png") if word in masks else word for word in given]
    prompts = ["--source", "a cat", "--target", "a dog", "--output", str(tmp_path / "out")]
    assert main(["edit", str(picture), *prompts, *words]) == 2
    assert message in error(capsys)


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_the_size_of_a_run(listed: Path, tiny_folder: Path, tmp_path: Path, no_model, capsys, more: list[str]) -> None:  # noqa: F811
    assert main(run_arguments(listed, tiny_folder, tmp_path / "out", "--size", "3", *more)) == 2
    assert "size must be native" in error(capsys)


def test_the_function_says_it_too(picture: Path, no_model: None) -> None:
    with pytest.raises(UserError, match=r"^sdedit reads no words and no mask: leave them out$"):
        sdist.edit(picture, "a cat", "a dog", method="sdedit", words="dog", mask=picture)
    with pytest.raises(UserError, match="mask given as ndarray is empty"):
        sdist.edit(picture, "a cat", "a dog", mask=np.zeros((32, 32), bool))


def test_the_methods_that_are_named_read_it() -> None:
    assert all(name in load_settings(method).editor.reads for name, method in SUCH_AS.items())
