"""What --input may be, and what is said where it is something else."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sdist.errors import UserError
from sdist.jobs.inputs import HINTS, read_index, read_pairs

HEAD = "img_path,source_prompt,target_prompt\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "images" / "a.png")
    (tmp_path / "in" / "index.csv").write_text(HEAD + "a.png,a cat,a dog\n")
    return tmp_path / "in"


@pytest.mark.parametrize("given", ["{}", "{}/", "index:{}", "{}/../in"])
def test_a_folder_is_read(folder: Path, given: str) -> None:
    assert [pair.target for pair in read_pairs(given.format(folder), pytest.fail)] == ["a dog"]


REFUSED: dict[str, str] = {
    "{}/index.csv": "is a file; give its folder",
    "{}x": "input folder .*x does not exist",
    "index:{}x": "input folder .*x does not exist",
    "index:": "names no folder",
    "": "names no folder",
    "indx:{}": "unknown dataset format 'indx' in --input indx:.*did you mean 'index'",
    "jsnl:{}": "unknown dataset format 'jsnl' in --input jsnl:.*: have index, magicbrush",
    "Index:{}": "did you mean 'index'",
    "pie-bench:{}": "did you mean 'pie_bench'",
    "pie_bench": "names no folder: pie_bench:FOLDER",
    "pie_bench:{}": "mapping_file.json does not exist",
    "s3://bucket/in": "is a URL, and inputs are local folders",
    "https://example.org/in": "is a URL, and inputs are local folders",
    "C:\\data": "does not exist",
}


@pytest.mark.parametrize(("given", "message"), REFUSED.items(), ids=REFUSED)
def test_what_is_no_input_is_one_line(folder: Path, given: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_pairs(given.format(folder), pytest.fail)


def test_columns_that_are_not_read_are_named_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "index.csv").write_text(
        "img_path,source_prompt,target_prompt,seed,Instructions,caption,masks,\na.png,a cat,a dog,1,,,m.png,\n"
    )
    assert len(read_pairs(str(folder), pytest.fail)) == 1
    known = "img_path, source_prompt, target_prompt, instruction, mask, category, caption, truth"
    others = "seed, instructions (did you mean instruction?), masks (did you mean mask?)"
    assert caplog.messages == [f"{folder}/index.csv: columns that are not read: {others}; known are {known}"]


def test_a_folder_may_have_a_colon_in_its_name(folder: Path) -> None:
    path = folder.rename(folder.parent / "jsnl:in")
    assert len(read_pairs(str(path), pytest.fail)) == 1


def instead(folder: Path) -> Path:
    """The place of index.csv, which is free then."""
    (folder / "index.csv").unlink()
    return folder / "index.csv"


INSTEAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "another case": (lambda folder: (folder / "index.csv").rename(folder / "Index.csv"), "but Index.csv; save it as index.csv"),
    "a workbook": (lambda folder: (folder / "index.csv").rename(folder / "index.xlsx"), "but index.xlsx; save it as index.csv"),
    "nothing": (lambda folder: (folder / "index.csv").unlink(), "index.csv does not exist; it lists img_path"),
    "a folder": (lambda folder: instead(folder).mkdir(), "is no file but a folder"),
    "a pipe": (lambda folder: os.mkfifo(instead(folder)), "is no file but a folder, a pipe"),
    "a loop": (lambda folder: instead(folder).symlink_to("index.csv"), "is a link that leads to no file"),
    "a header alone": (lambda folder: (folder / "index.csv").write_text(HEAD), "lists no image"),
    "a pointer": (lambda folder: (folder / "index.csv").write_text("version https://git-lfs.github.com/\n"), "fetch it with"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), INSTEAD.values(), ids=INSTEAD)
def test_what_is_there_instead_is_said(folder: Path, change: Callable[[Path], object], message: str) -> None:
    change(folder)
    with pytest.raises(UserError, match=message):
        read_pairs(str(folder), pytest.fail)


ROWS = {
    "images/a.png": "image 'images/a.png' does not exist in .*; did you mean '.*/in/images/a.png'",
    "A.PNG": "did you mean 'a.png'",
    "a": "did you mean 'a.png'",
    "": "img_path is empty",
    "../index.csv": "leaves the folder",
    "x" * 300: "cannot be the name of a file: File name too long",
    "https://example.org/b.png": "does not exist",
}


@pytest.mark.parametrize(("name", "message"), ROWS.items(), ids=[name[:30] for name in ROWS])
def test_a_row_whose_image_is_not_there_costs_itself(folder: Path, name: str, message: str) -> None:
    (folder / "index.csv").write_text(HEAD + f"{name},a cat,a dog\na.png,a cat,a dog\n")
    told: list[str] = []
    assert len(read_pairs(str(folder), told.append)) == 1
    (line,) = told
    assert line.startswith("index.csv line 2: ")
    with pytest.raises(UserError, match=message):
        raise UserError(line)


def test_a_row_may_have_a_mask_beside_its_image(folder: Path) -> None:
    (folder / "masks").mkdir()
    Image.new("L", (8, 8)).save(folder / "masks" / "a.png")
    (folder / "index.csv").write_text(
        "img_path,source_prompt,target_prompt,mask\na.png,a cat,a dog,a.png\na.png,a cat,a dog,\na.png,a cat,a dog,b.png\n"
    )
    problems = list[str]()
    pairs = read_pairs(str(folder), problems.append)
    assert [pair.mask for pair in pairs] == [folder.resolve() / "masks" / "a.png", None]
    assert problems == [f"index.csv line 4: mask 'b.png' does not exist in {folder.resolve()}/masks; did you mean 'a.png'?"]
    assert pairs[0].request(0, {"mask"}).mask == pairs[0].mask
    assert pairs[0].request(0, {"words"}).mask is None


def test_the_first_missing_images_get_a_hint(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "lion.png").touch()
    (tmp_path / "index.csv").write_text(HEAD + "lino.png,,a cat\n" * (HINTS + 5))
    problems = list[str]()
    assert read_index(tmp_path, problems.append) == []
    hinted = [problem.endswith("; did you mean 'lion.png'?") for problem in problems]
    assert hinted == [True] * HINTS + [False] * 5
