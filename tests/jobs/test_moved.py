"""What a run has made is made wherever its input lies: files are told by what they hold."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import sdist

from ..test_cli import listed, write_index  # noqa: F401
from .test_run import SETTINGS


def renamed(folder: Path) -> Path:
    (folder / "images" / "0.png").rename(folder / "images" / "other.png")
    write_index(folder, [["other.png", "", "a cat wearing a hat"], ["1.png", "a cat", "a cat wearing a hat"]])
    return folder


def linked(folder: Path) -> Path:
    (folder.parent / "link").symlink_to(folder)
    return folder.parent / "link"


def saved_by_a_spreadsheet(folder: Path) -> Path:
    text = (folder / "index.csv").read_text()
    (folder / "index.csv").write_bytes(text.replace(",", ";").encode("utf-16"))
    return folder


MOVED: dict[str, Callable[[Path], Path]] = {
    "moved": lambda folder: Path(shutil.move(folder, folder.parent / "moved")),
    "copied": lambda folder: Path(shutil.copytree(folder, folder.parent / "copy" / "deep")),
    "under a link": linked,
    "an image renamed": renamed,
    "with helper files": lambda folder: [(folder / "images" / name).touch() for name in ("._0.png", "Thumbs.db")] and folder,
    "saved by a spreadsheet": saved_by_a_spreadsheet,
}


@pytest.fixture
def made(listed: Path, tiny_folder: Path, tmp_path: Path) -> Callable[[Path, Path], sdist.RunResult]:  # noqa: F811
    """Two rows, made; a call makes what of a folder is missing, with a model."""
    write_index(listed, [["0.png", "", "a cat wearing a hat"], ["1.png", "a cat", "a cat wearing a hat"]])

    def run(folder: Path, model: Path = tiny_folder) -> sdist.RunResult:
        return sdist.run(folder, tmp_path / "out", model=str(model), settings=SETTINGS, steps=1)

    assert run(listed).made == 2
    return run


@pytest.mark.parametrize("move", MOVED.values(), ids=MOVED)
def test_a_moved_input_goes_on(made: Callable, listed: Path, move: Callable[[Path], Path]) -> None:  # noqa: F811
    result = made(move(listed))
    assert (result.made, result.there, result.problems) == (0, 2, ())


def test_a_model_in_another_folder_is_the_same(made: Callable, listed: Path, tiny_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    result = made(listed, Path(shutil.copytree(tiny_folder, tmp_path / "model")))
    assert (result.made, result.there) == (0, 2)


def test_another_image_under_the_same_name_is_not_the_same(made: Callable, listed: Path) -> None:  # noqa: F811
    Image.new("RGB", (32, 32), "red").save(listed / "images" / "0.png")
    result = made(listed)
    assert (result.made, result.there, result.changed) == (0, 1, 1)
    assert result.problems == ("index.csv line 2: 0_seed0.png was made with a different image; --changed makes it again",)
