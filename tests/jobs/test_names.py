"""Names of results: one edit beside another, rows that are added, sorted and changed, folders of before."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdist.cli import main
from sdist.datasets.base import load_dataset
from sdist.edits.outputs import output_files
from sdist.evaluation.results import find_results
from sdist.files.names import as_name, numbered, short_form, unique_names

from ..test_cli import NAME, PROMPTS, QUICK, edit, error, listed, pixels_of, run_arguments, write_index  # noqa: F401

HAT, DOG, HOUSE = "a cat wearing a hat", "a dog", "a red house"


def images(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.png") if not path.stem.endswith("_panel")}


# --- edit --------------------------------------------------------------------------------------------------------------


def test_another_prompt_method_or_setting_makes_another_file(picture: Path, tiny_folder: Path, tmp_path: Path) -> None:
    for more in ((), ("--target", DOG), ("--method", "dds"), ("--steps", "3"), (), ("--steps", "3"), ("--seed", "1")):
        assert edit(picture, tiny_folder, tmp_path / "out", *more) == 0
    others = {"picture_lusd_a-dog_seed0.png", "picture_dds_a-cat-wearing-a-hat_seed0.png"}
    assert images(tmp_path / "out") == {f"{NAME}_seed0.png", f"{NAME}_seed1.png", f"{NAME}_2_seed0.png", *others}


def test_a_result_of_before_is_found_by_what_it_shows(picture: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert edit(picture, tiny_folder, out) == 0
    for kind, path in output_files(out, f"{NAME}_seed0").items():
        path.rename(output_files(out, "picture_seed0")[kind])
    capsys.readouterr()
    assert edit(picture, tiny_folder, out, "--seeds", "2") == 0
    assert images(out) == {"picture_seed0.png", f"{NAME}_seed1.png"}
    assert capsys.readouterr().out.splitlines()[0] == str(out / "picture_seed0.png")


def test_output_may_be_the_file(picture: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "mine" / "x.png"
    assert edit(picture, tiny_folder, path) == 0
    assert {p.name for p in path.parent.iterdir()} == {"x.png", "x.json", "x_panel.png"}
    before = path.read_bytes()
    assert edit(picture, tiny_folder, path) == 0
    assert path.read_bytes() == before
    capsys.readouterr()
    assert edit(picture, tiny_folder, path, "--target", DOG) == 2
    assert "x.png was made with a different target prompt; --overwrite replaces it" in error(capsys)
    assert edit(picture, tiny_folder, path, "--method", "dds") == 2
    assert "x.png was made by method lusd, this call is dds; --overwrite replaces it" in error(capsys)
    assert edit(picture, tiny_folder, path, "--target", DOG, "--overwrite") == 0
    assert path.read_bytes() != before


@pytest.mark.parametrize(
    ("output", "more", "message"),
    [
        ("x.jpg", (), "results are PNG files, which hold their run card; name it x.png"),
        ("x.png", ("--seeds", "2"), "is one image, and --seeds 2 makes 2; name a folder"),
        ("picture.png", (), "picture.png would replace the input"),
        ("picture.png", ("--overwrite",), "picture.png would replace the input"),
        ("other.png", (), "other.png exists, and no run card says that it is of this result; --overwrite"),
    ],
)
def test_a_file_that_cannot_be_the_result(picture, tiny_folder, tmp_path, capsys, output, more, message) -> None:
    (tmp_path / "other.png").touch()
    assert edit(picture, tiny_folder, tmp_path / output, *more) == 2
    assert message in error(capsys)


@pytest.mark.parametrize("ending", ["_panel.png", ".json"])
def test_files_of_others_beside_a_result_are_not_replaced_unasked(
    picture: Path, tiny_folder: Path, tmp_path: Path, capsys, ending: str
) -> None:  # fmt: skip
    foreign = tmp_path / "out" / f"x{ending}"
    foreign.parent.mkdir()
    foreign.write_text('{"mine": 1}')
    assert edit(picture, tiny_folder, tmp_path / "out" / "x.png") == 2
    assert f"{foreign} exists, and no run card says that it is of this result; --overwrite" in error(capsys)
    beside = foreign.rename(foreign.with_name(f"{NAME}_seed0{ending}"))
    assert edit(picture, tiny_folder, tmp_path / "out") == 0
    assert images(tmp_path / "out") == {f"{NAME}_2_seed0.png"}
    assert beside.read_text() == '{"mine": 1}'


@pytest.mark.parametrize("output", ["mask.png", "link.png", "hard.png"])
def test_no_result_replaces_what_it_is_made_of(
    picture: Path, tiny_folder: Path, tmp_path: Path, monkeypatch, capsys, output: str
) -> None:  # fmt: skip
    mask = tmp_path / "mask.png"
    Image.new("L", (32, 32), 255).save(mask)
    (tmp_path / "link.png").symlink_to(picture)
    (tmp_path / "hard.png").hardlink_to(picture)
    monkeypatch.setattr("sdist.editors.loading.load_backbone", None)  # nothing is loaded
    assert edit(picture, tiny_folder, tmp_path / output, "--mask", str(mask), "--overwrite") == 2
    assert f"{output} would replace the input {mask if output == 'mask.png' else picture}" in error(capsys)


def test_a_run_replaces_no_image_that_it_is_made_of(listed: Path, tiny_folder: Path, capsys) -> None:  # noqa: F811
    taken = (listed / "images" / "1.png").rename(listed / "images" / "0_seed0.png")
    write_index(listed, [["0.png", "a cat", HAT], ["0_seed0.png", "a cat", HAT]])
    before = taken.read_bytes()
    assert main(run_arguments(listed, tiny_folder, listed / "images", "--overwrite")) == 2
    assert "0_seed0.png would replace the input" in error(capsys)
    assert taken.read_bytes() == before


def test_a_finished_result_is_no_part_of_another(picture: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    for name in ("x_step3", "x"):
        assert edit(picture, tiny_folder, tmp_path / "out" / f"{name}.png") == 0
    assert images(tmp_path / "out") == {"x_step3.png", "x.png"}
    assert edit(picture, tiny_folder, tmp_path / "other" / "x_panel.png") == 0
    before = (tmp_path / "other" / "x_panel.png").read_bytes()
    assert edit(picture, tiny_folder, tmp_path / "other" / "x.png") == 2
    assert "x_panel.png exists, and no run card says" in error(capsys)
    assert (tmp_path / "other" / "x_panel.png").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A cat, in snow!", "a-cat-in-snow"),
        ("a painting of a castle on a hill at night with fog", "a-painting-of-a-castle-on-a-hill-at"),
        ("ein Löwe", "ein-löwe"),
        ("雪の中の猫", "雪の中の猫"),
        ("\U0001f9a9", "edit"),
        ("x" * 300, "x" * 40),
        ("../../etc", "etc"),
    ],
)
def test_a_text_as_part_of_a_name(text: str, expected: str) -> None:
    assert short_form(text) == expected


def test_names_are_of_files_and_occur_once() -> None:
    hard = [".hidden", "a/b", "a:b", "\udcff", "", "x" * 300, "é" * 300, " "]
    assert [as_name(name) for name in hard[:5]] == ["hidden", "a_b", "a_b", "_", "image"]
    assert all(0 < len(as_name(name).encode()) <= 120 for name in hard)
    assert unique_names(["cat", "Cat", "cat_2", "cat", "dog"]) == ["cat", "Cat_2", "cat_2_2", "cat_3", "dog"]
    assert numbered("cat", {"cat", "cat_2"}) == "cat_3"


# --- run ---------------------------------------------------------------------------------------------------------------


def test_rows_may_be_added_and_sorted(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    arguments = run_arguments(listed, tiny_folder, tmp_path / "out")
    write_index(listed, [["1.png", "a cat", HAT], ["2.png", "a cat", HAT], ["2.png", "a cat", DOG]])
    assert main(arguments) == 0
    assert images(tmp_path / "out") == {"1_seed0.png", "2_seed0.png", "2_2_seed0.png"}
    before = pixels_of(tmp_path / "out")
    write_index(listed, [["2.png", "a cat", HOUSE], ["2.png", "a cat", DOG], ["0.png", "a cat", HAT], ["2.png", "a cat", HAT]])
    capsys.readouterr()
    assert main(arguments) == 0
    assert "2 of 4 made, 2 already there, 0 failed\n" in capsys.readouterr().out
    after = pixels_of(tmp_path / "out")
    assert after.keys() - before.keys() == {f"{name}_seed0{end}.png" for name in ("0", "2_3") for end in ("", "_panel")}
    assert all(np.array_equal(after[name], before[name]) for name in before)
    pairs = load_dataset(f"index:{listed}")
    with pytest.raises(ValueError, match="belong to no pair"):
        find_results(tmp_path / "out", pairs)
    write_index(
        listed,
        [
            ["1.png", "a cat", HAT],
            ["2.png", "a cat", HOUSE],
            ["2.png", "a cat", DOG],
            ["0.png", "a cat", HAT],
            ["2.png", "a cat", HAT],
        ],
    )
    found = find_results(tmp_path / "out", load_dataset(f"index:{listed}"))
    assert [path.name for path in found.values() if path] == [f"{name}_seed0.png" for name in ("1", "2_3", "2_2", "0", "2")]


def test_changed_rows_are_named_and_made_again_if_asked(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    out, arguments = tmp_path / "out", run_arguments(listed, tiny_folder, tmp_path / "out")
    assert main(arguments) == 0
    before = pixels_of(out)
    write_index(listed, [["0.png", "", HAT], ["1.png", "a cat", DOG], ["2.png", "a house", HOUSE], ["3.png", "a cat", HAT]])
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(listed / "images" / "3.png")
    capsys.readouterr()
    assert main(arguments) == 2
    printed = capsys.readouterr()
    told = [line.partition("error: ")[2] for line in printed.err.splitlines() if "error" in line]
    assert told == [
        "index.csv line 3: 1_seed0.png was made with a different target prompt; --changed makes it again",
        "index.csv line 4: 2_seed0.png was made with a different source prompt and target prompt; --changed makes it again",
        "index.csv line 5: 3_seed0.png was made with a different image; --changed makes it again",
    ]
    assert "0 of 4 made, 1 already there, 0 failed, 3 changed since (--changed)\n" in printed.out
    assert all(line in printed.out for line in told)
    assert (out / "problems.txt").read_text().splitlines() == told
    assert main([*arguments, "--changed"]) == 0
    assert "3 of 4 made, 1 already there, 0 failed\n" in capsys.readouterr().out
    after = pixels_of(out)
    assert {name for name in after if not np.array_equal(before[name], after[name]) and "_panel" not in name} == {
        f"{i}_seed0.png" for i in (1, 2, 3)
    }
    assert not (out / "problems.txt").exists()
    assert main(arguments) == 0


def test_other_settings_are_refused_once_and_made_again_if_asked(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    out, arguments = tmp_path / "out", run_arguments(listed, tiny_folder, tmp_path / "out")
    assert main(arguments) == 0
    assert main([*arguments, "--steps", "3"]) == 2
    assert f"{out}/0_seed0.png was made with different steps (4 results in all); --changed makes" in error(capsys)
    assert main([*arguments, "--steps", "3", "--changed", "--limit", "1"]) == 0
    assert main([*arguments, "--steps", "3", "--changed"]) == 0
    assert "3 of 4 made, 1 already there, 0 failed\n" in capsys.readouterr().out


def test_a_folder_of_before_resumes_and_is_found(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    """Results by the numbers of rows, as they were called; a row put in at the top shifts them."""
    out, arguments = tmp_path / "out", run_arguments(listed, tiny_folder, tmp_path / "out")
    assert main(arguments) == 0
    for i in range(4):
        for kind, path in output_files(out, f"{i}_seed0").items():
            path.rename(output_files(out, f"{i:03d}_seed0")[kind])
    shutil.copy(listed / "images" / "0.png", listed / "images" / "first.png")
    rows = [[f"{i}.png", "a cat" if i else "", HAT] for i in range(4)]
    write_index(listed, [["first.png", "a cat", DOG], *rows])
    capsys.readouterr()
    assert main(arguments) == 0
    assert "1 of 5 made, 4 already there, 0 failed\n" in capsys.readouterr().out
    found = find_results(out, load_dataset(f"index:{listed}"))
    assert [path.name for path in found.values() if path] == ["first_seed0.png", *(f"{i:03d}_seed0.png" for i in range(4))]
    write_index(listed, [["first.png", "a cat", DOG], [rows[0][0], "", DOG], *rows[1:]])
    assert main([*arguments, "--changed"]) == 0
    assert "1 of 5 made, 4 already there, 0 failed\n" in capsys.readouterr().out
    assert images(out) == {"first_seed0.png", *(f"{i:03d}_seed0.png" for i in range(4))}


def test_results_without_cards_are_found_by_their_names(listed: Path, tmp_path: Path) -> None:  # noqa: F811
    """As other programs leave them."""
    for name in ("000_seed0", "000", "001", "002_seed1", "003_panel", "003"):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{name}.png")
    (tmp_path / "001_seed0_step3.png").write_bytes((tmp_path / "001.png").read_bytes())
    shutil.rmtree(tmp_path / "input" / "nothing", ignore_errors=True)
    (tmp_path / "results").mkdir()
    for path in tmp_path.glob("*.png"):
        shutil.move(path, tmp_path / "results" / path.name)
    found = find_results(tmp_path / "results", load_dataset(f"index:{listed}"))
    assert [path and path.name for path in found.values()] == ["000_seed0.png", "001.png", None, "003.png"]


def test_a_finished_run_needs_no_writable_folder(listed: Path, tiny_folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:  # noqa: F811
    arguments = run_arguments(listed, tiny_folder, tmp_path / "out")
    assert main(arguments) == 0

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "out"))

    monkeypatch.setattr("sdist.edits.outputs.try_writing", refuse)
    capsys.readouterr()
    assert main(arguments) == 0
    assert "0 of 4 made, 4 already there, 0 failed\n" in capsys.readouterr().out
    (tmp_path / "out" / "1_seed0.png").unlink()
    assert main(arguments) == 2
    assert "cannot be written: Permission denied" in error(capsys)


@pytest.mark.parametrize("name", ["1_seed0_panel.png", "1_seed0.json"])
def test_a_run_replaces_no_files_of_others_unasked(listed: Path, tiny_folder: Path, tmp_path: Path, capsys, name: str) -> None:  # noqa: F811
    (tmp_path / "out").mkdir()
    step, foreign = tmp_path / "out" / "0_seed0_step5.png", tmp_path / "out" / name
    for path in (step, foreign):
        path.write_text("[]")
    assert main(run_arguments(listed, tiny_folder, tmp_path / "out")) == 2
    assert f"{foreign} exists, and no run card says that it is of this result; --overwrite" in error(capsys)
    foreign.unlink()
    assert main(run_arguments(listed, tiny_folder, tmp_path / "out")) == 0
    assert step.read_text() == "[]"


def test_one_request_in_two_rows_has_two_results(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    arguments = run_arguments(listed, tiny_folder, tmp_path / "out")
    write_index(listed, [["1.png", "a cat", HAT], ["1.png", "a cat", HAT]])
    assert main(arguments) == 0
    assert images(tmp_path / "out") == {"1_seed0.png", "1_2_seed0.png"}
    assert main(arguments) == 0
    assert "0 of 2 made, 2 already there" in capsys.readouterr().out
