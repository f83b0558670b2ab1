"""Names as other systems write them, names of files that are never meant, and the name that was meant."""

import unicodedata
from pathlib import Path, PurePosixPath

import pytest

from sdist.errors import UserError
from sdist.files.helpers import is_helper
from sdist.files.named import file_in, near_file

COMPOSED, APART = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))


def with_file(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("given", "there"),
    {
        "the same": ("a.png", "a.png"),
        "a folder": ("sub/a.png", "sub/a.png"),
        "backslashes": ("sub\\deep\\a.png", "sub/deep/a.png"),
        "a backslash in the name itself": ("sub\\a.png", "sub\\a.png"),
        "composed, the file decomposed": (COMPOSED, APART),
        "decomposed, the file composed": (APART, COMPOSED),
        "a folder decomposed, the file composed": (f"{COMPOSED}\\{APART}", f"{APART}/{COMPOSED}"),
    }.values(),
)
def test_a_file_is_found_by_a_name_that_reads_alike(tmp_path: Path, given: str, there: str) -> None:
    path = with_file(tmp_path, there)
    assert file_in(tmp_path, given) == path


@pytest.mark.parametrize(
    ("given", "message"),
    {
        "above": ("../a.png", "leaves the folder"),
        "above, with backslashes": ("..\\a.png", "leaves the folder"),
        "absolute": ("/etc/hostname", "leaves the folder"),
        "nothing": ("", "is empty"),
        "too long": ("x" * 300, "cannot be the name of a file: File name too long"),
        "a zero byte": ("a\0b.png", "cannot be the name of a file"),
    }.values(),
)
def test_what_no_file_of_the_folder_can_be_called(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        file_in(tmp_path, given)


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("Lion.PNG", "lion.png"),
        ("lion", "lion.png"),
        ("lino.png", "lion.png"),
        ("images/lion.png", "TOP/lion.png"),
        ("zebra.png", ""),
    ],
)
def test_the_file_that_was_meant(tmp_path: Path, given: str, near: str) -> None:
    with_file(tmp_path, "lion.png")
    expected = near.replace("TOP", str(tmp_path))
    assert near_file(tmp_path / given) == (f"; did you mean {expected!r}?" if near else "")


def test_another_number_of_a_series_was_not_meant(tmp_path: Path) -> None:
    with_file(tmp_path, "img3.png")
    assert near_file(tmp_path / "img9.png") == ""
    assert near_file(tmp_path / "imgs3.png") == "; did you mean 'img3.png'?"


@pytest.mark.parametrize(
    ("path", "helper"),
    {
        "a/000_seed0.png": False, "a.b/c..png": False, "._000_seed0.png": True, ".thumbnails/000.png": True,
        "a/@eaDir/b/x.png": True, "Thumbs.db": True, "a/desktop.ini": True, "__MACOSX/000.png": True,
        ".000_seed0.png.ab.part": True, "#recycle/000.png": True,
    }.items(),
)  # fmt: skip
def test_helpers_of_systems_are_told(path: str, helper: bool) -> None:
    assert is_helper(PurePosixPath(path)) == helper
