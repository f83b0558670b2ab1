"""nltk's data may be whole, absent or damaged: nouns are found in any case, and it is said by what."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import nltk
import pytest

import sdist
from sdist import taggers
from sdist.taggers import default_tagger, nltk_damage, nltk_tagger

NAME = "averaged_perceptron_tagger_eng"
GOOD = {"weights": {}, "tagdict": {"the": "DT", "cat": "NN"}, "classes": ["NN", "DT"]}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of nltk's data, which alone is looked at."""
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    folder = tmp_path / "taggers" / NAME
    folder.mkdir(parents=True)
    for part, value in GOOD.items():
        (folder / f"{NAME}.{part}.json").write_text(json.dumps(value))
    for cached in (default_tagger, taggers._load):
        cached.cache_clear()
    yield folder
    for cached in (default_tagger, taggers._load):
        cached.cache_clear()


def test_data_that_is_whole_is_used(data: Path) -> None:
    assert default_tagger()[0] == "nltk"
    assert default_tagger()[1](["the", "cat"]) == ["DT", "NN"]
    assert nltk_damage() == ""


def part(name: str) -> Callable[[Path], Path]:
    return lambda folder: folder / f"{NAME}.{name}.json"


def link(folder: Path) -> None:
    shutil.move(folder, folder.parents[2] / "elsewhere")
    folder.symlink_to(folder.parents[2] / "elsewhere")


def as_zip(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.with_suffix(".zip").write_bytes(b"PK\x03\x04cut off")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda folder: part("weights")(folder).write_text(""),
    "cut": lambda folder: part("weights")(folder).write_text("{"),
    "another type": lambda folder: part("tagdict")(folder).write_text("[1]"),
    "not text": lambda folder: part("classes")(folder).write_bytes(b"\xff\xfe\x00"),
    "a part missing": lambda folder: part("tagdict")(folder).unlink(),
    "no words": lambda folder: part("tagdict")(folder).write_text("{}"),
    "a folder in a file's place": lambda folder: (part("classes")(folder).unlink(), part("classes")(folder).mkdir()),
    "a cut zip": as_zip,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_data_gives_way_with_one_warning(data: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    DAMAGE[name](data)
    for _ in range(2):
        assert default_tagger()[0] == "textblob"
    assert default_tagger()[1](["the", "cat"]) == ["DT", "NN"]
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "sdist"]
    assert "nltk's tagger data cannot be used (" in warning
    assert "\n" not in warning
    assert nltk_damage()


def test_linked_data_is_used_or_gives_way(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    link(data)
    assert default_tagger()[0] in ("nltk", "textblob")
    assert bool(caplog.messages) == (default_tagger()[0] == "textblob")


def test_absent_data_is_not_warned_of(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(data)
    caplog.set_level(logging.INFO)
    assert default_tagger()[0] == "textblob"
    assert (nltk_tagger(), nltk_damage(), caplog.messages) == (None, "", [])


def test_the_card_names_the_tagger_if_it_chose(data: Path, picture: Path, tiny_folder: Path) -> None:
    def card(method: str = "lusd", **options: object) -> dict:
        return sdist.edit(picture, "a dog", "a cat", model=str(tiny_folder), method=method, steps=1, **options).card

    assert card()["tagger"] == "nltk"
    assert "tagger" not in card(words="cat")
    assert "tagger" not in card("dds")
