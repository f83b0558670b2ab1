"""Plans of many images: what is read, and how often results are looked at."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import sdist
from sdist.config.build import load_settings
from sdist.edits.outputs import stopped_names
from sdist.edits.request import Request
from sdist.edits.run_card import describe
from sdist.edits.stored_results import StoredResult, image_marks
from sdist.files.names import FreeNames
from sdist.jobs import matching
from sdist.jobs.matching import _Matcher
from sdist.jobs.options import SessionOptions
from sdist.jobs.plan import Task, missing_of
from sdist.jobs.session import Session

from ..test_cli import edit, listed  # noqa: F401
from .test_run import SETTINGS

ROWS = 100


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the source images that are read as a whole."""
    names, opened = list[str](), Path.open

    def open_file(path: Path, *given: Any, **options: Any) -> Any:
        if path.parent.name == "images" or path.name == "picture.png":
            names.append(path.name)
        return opened(path, *given, **options)

    monkeypatch.setattr(Path, "open", open_file)
    return names


def test_an_image_is_digested_once_however_many_seeds(
    listed: Path, tiny_folder: Path, picture: Path, tmp_path: Path, digested: list[str]  # noqa: F811
) -> None:  # fmt: skip
    for expected in (8, 0):
        digested.clear()
        result = sdist.run(listed, tmp_path / "out", model=str(tiny_folder), settings=SETTINGS, steps=1, seeds=2)
        assert result.made == expected
    assert sorted(digested) == ["0.png", "1.png", "2.png", "3.png"]
    for _ in range(2):
        digested.clear()
        assert edit(picture, tiny_folder, tmp_path / "edits", "--seeds", "3") == 0
    assert digested == ["picture.png"]


def made(folder: Path, image: str, target: str) -> StoredResult:
    job: dict[str, Any] = {"image": f"/before/{image}.png", "sha256": image, "source": "", "target": target, "seed": 0}
    return StoredResult(folder / f"{image}_seed0.png", "{}", {"job": job}, True)


@pytest.mark.parametrize(("image", "name"), [("{}.png", "{}_seed0"), ("other{}.png", "{}_2_seed0")])
def test_results_are_looked_at_a_few_times_each(tmp_path: Path, monkeypatch, image: str, name: str) -> None:
    looked = list[str]()
    monkeypatch.setattr(matching, "image_marks", lambda job: looked.append(job["image"]) or image_marks(job))
    monkeypatch.setattr(matching, "describe", lambda request, _: describe(request, lambda path: f"now {path.stem}"))
    results = [made(tmp_path, str(i), "a dog") for i in range(ROWS)]
    tasks = [
        Task(f"{i}_seed0", f"line {i}", Request(Path(image.format(i)), "", "a cat"), (32, 32), i) for i in range(ROWS)
    ]  # fmt: skip
    session = cast(Any, SimpleNamespace(folder=tmp_path, overwrite=False))
    found = _Matcher(session, results, {one.image.name for one in results}).match(tasks)
    assert [task.name for task in found.tasks] == [name.format(i) for i in range(ROWS)]
    assert len(looked) <= 4 * ROWS


def test_the_same_pixels_come_before_a_file_of_the_same_name(tmp_path: Path) -> None:
    orphans = matching._Orphans([made(tmp_path, name, "a dog") for name in ("0", "1")])
    job = {"image": "elsewhere\\0.png", "sha256": "1", "seed": 0}
    assert orphans.take(job | {"seed": 1}, ()) is None
    taken = [orphans.take(job, ()) for _ in range(3)]
    assert [one and one.name for one in taken] == ["1_seed0", "0_seed0", None]
    orphans = matching._Orphans([made(tmp_path, name, "a dog") for name in ("0", "1")])
    first = orphans.take(job, ("0_seed0",))
    assert first is not None
    assert first.name == "0_seed0"


def test_free_names_keep_their_ending_and_go_on_where_they_were() -> None:
    free = FreeNames({"cat_seed0", "cat_3_seed0"})
    taken = [free.take("Cat", "_seed0") for _ in range(3)] + [free.take("Cat", "_seed1"), free.take("cat_2", "_seed0")]
    assert taken == ["Cat_2_seed0", "Cat_4_seed0", "Cat_5_seed0", "Cat_seed1", "cat_2_2_seed0"]


def test_what_stopped_images_left_is_found_by_their_names() -> None:
    files = ["a_seed0_step3.png", "a_seed0_step3_panel.png", "a_seed0_step3.json", "a_seed0.png", "b_step2_seed1_step7.json"]
    expected = {"a_seed0": {"a_seed0_step3"}, "b_step2_seed1": {"b_step2_seed1_step7"}}
    assert stopped_names([*files, "a_step.png", "_step1.png"]) == expected


def test_what_this_run_or_another_has_made_since_the_plan_is_not_missing(tmp_path: Path, tiny_folder: Path, listed: Path) -> None:  # noqa: F811
    sdist.run(listed, tmp_path, model=str(tiny_folder), settings=SETTINGS, steps=1, limit=3)
    asked = SessionOptions(method="lusd", settings=load_settings("lusd"), output=tmp_path)
    first = (tmp_path / "0_seed0.json").read_text()
    half = tmp_path / "2_seed0.json"  # of a process that was killed before it wrote the image
    half.write_text(half.read_text() + " ")
    tasks = [
        Task(f"{i}_seed0", "", Request(Path(f"{i}.png"), "", "a cat"), (32, 32), i, card)
        for i, card in enumerate((first, "of before", "of before", None))
    ]
    assert [task.number for task in missing_of(Session(asked), tasks)] == [0, 2, 3]
