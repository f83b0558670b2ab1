"""Names that no file or run card can have are refused before anything is computed."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.edits.outputs import check_name
from sdist.edits.request import Request
from sdist.edits.run_card import plain_settings
from sdist.errors import UserError
from sdist.jobs.loggers import LONGEST, _short
from sdist.plugins import load_plugin

from ..test_cli import edit


@pytest.mark.parametrize("path", [b"\xe9.png", b"\xff/a.png", b"a\x80b/c/d.png"])
@pytest.mark.parametrize("role", ["image", "mask"])
def test_a_path_that_is_no_text(path: bytes, role: str) -> None:
    given = {"image": Path("a.png"), "mask": None, role: Path(os.fsdecode(path))}
    with pytest.raises(UserError, match=r"the path .*\\udc.* is not UTF-8, so no run card can name it; rename"):
        Request(given["image"], "a cat", "a dog", mask=given["mask"])


@pytest.mark.parametrize("path", ["é.png", "日本.png", "\N{FOX FACE}/a b.png", "a\nb.png"])
def test_paths_in_any_script_are_taken(path: str) -> None:
    assert Request(Path(path), "a cat", "a dog").image == Path(path)


@pytest.mark.parametrize(("name", "fits"), [("x" * 230, True), ("x" * 231, False), ("é" * 115, True), ("é" * 116, False)])
def test_the_longest_file_of_a_name_fits(tmp_path: Path, name: str, fits: bool) -> None:
    hidden = tmp_path / f".{name}_panel.png.00000000.part"
    if fits:
        check_name(tmp_path, name)
        hidden.touch()
        return
    with pytest.raises(UserError, match=r"is too long for files in .*: \d bytes less would do"):
        check_name(tmp_path, name)
    with pytest.raises(OSError, match="too long"):
        hidden.touch()


@pytest.mark.parametrize("name", [os.fsdecode(b"\xe9.png")])
def test_they_are_refused_before_the_model_is_loaded(picture: Path, tmp_path: Path, monkeypatch, capsys, name: str) -> None:
    (tmp_path / name).write_bytes(picture.read_bytes())
    monkeypatch.setattr("sdist.editors.loading.load_backbone", None)
    code = main(["edit", str(tmp_path / name), "--target", "a cat", "--output", str(tmp_path / "out"), "--quiet"])
    lines = capsys.readouterr().err.splitlines()
    assert (code, len(lines)) == (2, 1)
    assert "is not UTF-8" in lines[0]


def test_results_of_the_longest_names_are_called_by_their_beginnings(picture: Path, tiny_folder: Path, tmp_path: Path) -> None:
    image = tmp_path / ("x" * 250 + ".png")
    image.write_bytes(picture.read_bytes())
    assert edit(image, tiny_folder, tmp_path / "out", "--quiet") == 0
    assert edit(image, tiny_folder, tmp_path / "out" / ("y" * 250 + ".png"), "--quiet") == 2
    assert [path.name for path in (tmp_path / "out").glob("*.json")] == [f"{'x' * 120}_lusd_a-cat-wearing-a-hat_seed0.json"]


def test_settings_that_no_card_can_hold() -> None:
    settings = replace(load_settings("lusd"), model=os.fsdecode(b"model\xe9"))
    with pytest.raises(UserError, match=r"model is not UTF-8: .*udce9.*; no run card can hold it"):
        plain_settings(settings)


def test_a_plugin_that_no_card_can_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its path is not UTF-8; rename it"):
        load_plugin(str(tmp_path / os.fsdecode(b"loss\xe9.py")))


def test_the_names_of_logs_are_cut_and_told_apart() -> None:
    one, other = (_short(f"lusd-{'é' * 100}-{end}") for end in ("a", "b"))
    assert one != other
    assert max(len(one.encode()), len(other.encode())) <= LONGEST
    assert _short("lusd-000_seed0") == "lusd-000_seed0"
