"""`sdist.run`: the same as the command from Python; seeds belong to images, not to their settings."""

import errno
import json
import logging
import os
from pathlib import Path

import pytest

import sdist
from sdist.cli import main
from sdist.edits.outputs import ERRORS
from sdist.jobs.summary import summary

from ..test_cli import edit, error, listed, run_arguments, write_index  # noqa: F401
from .test_jobs import assert_same

SETTINGS = {"scale": {"threshold": 0.01, "cross_level": 1}, "scale.self_level": 0}


def run(folder: Path, output: Path, model: Path, **options: object) -> sdist.RunResult:
    return sdist.run(folder, output, **{"model": str(model), "settings": SETTINGS, "steps": 2, **options})


def test_python_makes_what_the_command_makes(listed: Path, tiny_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    assert main(run_arguments(listed, tiny_folder, tmp_path / "command", "--seed", "4", "--seeds", "2", "--limit", "5")) == 0
    result = run(listed, tmp_path / "python", tiny_folder, seed=4, seeds=2, limit=5)
    assert result[:7] == (tmp_path / "python", 8, 5, 0, (), 3, ())
    assert result.seconds > 0
    assert_same(tmp_path / "command", tmp_path / "python")
    again = run(listed, tmp_path / "python", tiny_folder, seed=4, seeds=2)
    assert (again.made, again.there, again.left) == (3, 5, 0)


def test_the_repr_of_what_a_run_gives_is_one_line(tmp_path: Path) -> None:
    result = sdist.RunResult(tmp_path, 3, 1, 1, ("a_seed0",), 0, ("a: broken",), 1.0)
    assert repr(result) == f"<RunResult in {tmp_path}: 1 of 3 made, 1 already there, 1 failed, 1 problem>"


def test_problems_are_told_when_they_are_found_and_in_the_result(
    listed: Path, tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture  # noqa: F811
) -> None:  # fmt: skip
    write_index(listed, [["none.png", "a", "b"], ["0.png", "a cat", "a dog"], ["1.png", "a cat", "a dog"]])
    content = (listed / "images" / "1.png").read_bytes()
    (listed / "images" / "1.png").write_bytes(content[: len(content) // 2])
    result = run(listed, tmp_path / "out", tiny_folder, overwrite=True)
    assert (result.total, result.made, result.failed, result.refused) == (3, 1, ("1_seed0",), 1)
    assert [problem.partition(": ")[0] for problem in result.problems] == ["index.csv line 2", "index.csv line 4"]
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == list(result.problems)
    assert "cannot be read" in json.loads((tmp_path / "out" / ERRORS / "1_seed0.json").read_text())["error"]
    assert "error" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lusdd"}, "did you mean 'lusd'"),
        ({"seed_s": 2}, "unknown option 'seed_s' in sdist.run; did you mean 'seeds'"),
        ({"seeds": 0}, "--seeds must be at least 1, got 0"),
        ({"parallel": 0}, "--parallel must be at least 1, got 0"),
        ({"log": "csw"}, "unknown --log 'csw'; did you mean 'csv'.*have"),
        ({"engine": "rays"}, "unknown --engine 'rays'; did you mean 'ray'\\? have local, ray"),
        ({"devices": 0}, "--devices must be auto or a number from 1, got 0"),
        ({"shard": (2, 2)}, "--shard must be I/N with I from 0 to N-1, got 2/2"),
        ({"workers": 2}, "--workers belongs to --engine ray"),
        ({"settings": "steps=2"}, "settings is a mapping or a list"),
    ],
)
def test_bad_options_are_user_errors(listed: Path, tiny_folder: Path, tmp_path: Path, options: dict, message: str) -> None:  # noqa: F811
    with pytest.raises(sdist.UserError, match=message):
        run(listed, tmp_path / "out", tiny_folder, **options)
    assert not (tmp_path / "out").exists()


def test_results_of_another_method_are_a_user_error(listed: Path, tiny_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    run(listed, tmp_path / "out", tiny_folder, limit=1)
    with pytest.raises(sdist.UserError, match=r"0_seed0\.png was made with different steps"):
        run(listed, tmp_path / "out", tiny_folder, steps=3)


def test_a_result_is_the_same_whichever_seed_the_run_began_with(
    listed: Path, tiny_folder: Path, tmp_path: Path, capsys  # noqa: F811
) -> None:  # fmt: skip
    write_index(listed, [["0.png", "a cat", "a dog"]])
    arguments = run_arguments(listed, tiny_folder, tmp_path / "out")
    assert main([*arguments, "--seeds", "3"]) == 0
    for first in (["--set", "seed=2"], ["--seed", "1", "--seeds", "2"]):
        capsys.readouterr()
        assert main([*arguments, *first]) == 0
        assert "0 of " in capsys.readouterr().out
    card = tmp_path / "out" / "0_seed2.json"
    other = json.loads(card.read_text())
    card.write_text(json.dumps(other | {"job": other["job"] | {"seed": 1}}))
    assert main([*arguments, "--seed", "2"]) == 2
    assert "0_seed2.png was made with a different seed" in error(capsys)


def test_seed_is_the_first_of_seeds(listed: Path, tiny_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    write_index(listed, [["0.png", "a cat", "a dog"]])
    assert main(run_arguments(listed, tiny_folder, tmp_path / "out", "--seed", "7")) == 0
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {"0_seed7.json"}
    (tmp_path / "own.yaml").write_text("variants: {plain: dds}")
    sweep = ["sweep", str(tmp_path / "own.yaml"), *run_arguments(listed, tiny_folder, tmp_path / "sweep")[1:]]
    assert main([*sweep, "--seed", "7", "--seeds", "2"]) == 0
    assert {path.name for path in (tmp_path / "sweep" / "plain").glob("*.json")} == {"0_seed7.json", "0_seed8.json"}


def test_a_dry_run_says_what_it_would_make_and_writes_nothing(
    listed: Path, tiny_folder: Path, tmp_path: Path, capsys, caplog  # noqa: F811
) -> None:  # fmt: skip
    arguments = run_arguments(listed, tiny_folder, tmp_path / "out", "--dry-run")
    assert main(arguments) == 0
    assert capsys.readouterr().out == "0 of 4 made, 0 already there, 0 failed\n4 not made yet (--dry-run)\n"
    assert "would make 3_seed0.png: 3.png, 'a cat' -> 'a cat wearing a hat'" in caplog.text
    assert not (tmp_path / "out").exists()


def test_programs_get_a_json_object_per_image_and_the_totals(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    write_index(
        listed, [["0.png", "a cat", "a dog"], ["none.png", "a", "b"], ["1.png", "a cat", "a dog"], ["2.png", "a cat", "a dog"]]
    )
    out, arguments = tmp_path / "out", run_arguments(listed, tiny_folder, tmp_path / "out", "--json")
    assert main([*arguments, "--limit", "1"]) == 2
    capsys.readouterr()
    content = (listed / "images" / "1.png").read_bytes()
    (listed / "images" / "1.png").write_bytes(content[: len(content) // 2])
    assert main(arguments) == 2
    *images, totals = map(json.loads, capsys.readouterr().out.splitlines())
    refused, *images = images
    assert refused["status"] == "refused"
    assert refused["reason"].startswith("index.csv line 3: image 'none.png' does not exist")
    assert [(image["status"], image["image"]) for image in images] == [
        ("there", f"{out}/0_seed0.png"), ("failed", f"{out}/1_seed0.png"), ("made", f"{out}/2_seed0.png"),
    ]  # fmt: skip
    assert (images[2]["target"], images[2]["seed"]) == ("a dog", 0)
    assert images[2]["source_image"] == str((listed / "images" / "2.png").resolve())
    assert "cannot be read" in images[1]["reason"]
    assert totals["seconds"] == round(totals["seconds"], 3)
    assert [totals[key] for key in ("status", "total", "made", "there", "failed", "refused")] == [
        "total",
        4,
        1,
        1,
        ["1_seed0"],
        1,
    ]
    assert len(totals["problems"]) == 2


@pytest.mark.parametrize("is_refused", [True, False])
def test_problems_of_a_folder_that_is_read_only_are_in_the_summary(
    listed: Path, tiny_folder: Path, tmp_path: Path, monkeypatch, capsys, caplog, is_refused: bool  # noqa: F811
) -> None:  # fmt: skip
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    arguments = run_arguments(listed, tiny_folder, tmp_path / "out")
    assert main(arguments) == 0
    monkeypatch.setattr("sdist.edits.outputs.try_writing", refuse)
    monkeypatch.setattr("sdist.files.storage.write_atomic", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    capsys.readouterr()
    assert main(arguments) == 0
    assert "problems.txt" not in caplog.text
    if is_refused:
        write_index(listed, [["0.png", "", "a cat wearing a hat"], ["none.png", "a cat", "a dog"]])
        assert main(arguments) == 2
        assert "0 of 2 made, 1 already there, 0 failed, 1 refused\n1 problem:\n  index.csv line 3" in capsys.readouterr().out
        assert "problems.txt cannot be written: Read-only file system" in caplog.text
    else:
        (tmp_path / "out" / "problems.txt").touch()
        assert main(arguments) == 0
        assert "problems.txt is of an earlier call and cannot be removed: Read-only file system" in caplog.text


def test_programs_are_told_of_rows_that_cannot_be_edited_or_have_changed(
    listed: Path, tiny_folder: Path, tmp_path: Path, capsys  # noqa: F811
) -> None:  # fmt: skip
    write_index(listed, [["0.png", "a cat", "a dog"]])
    arguments = run_arguments(listed, tiny_folder, tmp_path / "out", "--json")
    assert main(arguments) == 0
    write_index(listed, [["0.png", "a cat", "a hat"], ["1.png", "a cat", "a cat"]])
    for more in ([], ["--dry-run"]):
        capsys.readouterr()
        assert main([*arguments, *more]) == 2
        refused, changed, total = map(json.loads, capsys.readouterr().out.splitlines())
        assert [refused[key] for key in ("status", "source", "target")] == ["refused", "a cat", "a cat"]
        assert refused["source_image"] == str((listed / "images" / "1.png").resolve())
        assert [changed[key] for key in ("status", "image", "target", "reason")] == [
            "changed", f"{tmp_path / 'out'}/0_seed0.png", "a hat", "different target prompt",
        ]  # fmt: skip
        assert (total["refused"], total["changed"]) == (1, 1)


def test_an_image_is_the_same_to_programs_from_edit_and_run(picture: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    image = os.path.relpath(picture)
    assert edit(Path(image), tiny_folder, tmp_path / "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["source_image"] == str(picture.resolve())


def test_one_image_is_not_called_several(listed: Path, tiny_folder: Path, tmp_path: Path, caplog) -> None:  # noqa: F811
    write_index(listed, [["0.png", "a cat", "a dog"]])
    assert main(run_arguments(listed, tiny_folder, tmp_path / "out")) == 0
    assert "1 image: 0_seed0" in caplog.messages


def test_problems_are_summed_up_in_the_order_of_the_lines() -> None:
    found = ["index.csv line 12: b", "3 images failed", "index.csv lines 4 to 5: a", "index.csv line 2: c"]
    result = sdist.RunResult(Path("out"), 20, 4, 0, ("x",), 0, tuple(found), 1.0, refused=3)
    lines = summary([result], found, Path("out/problems.txt"))
    assert lines[0] == "4 of 20 made, 0 already there, 1 failed, 3 refused"
    assert lines[2:] == ["4 problems, all in out/problems.txt:", *(f"  {found[i]}" for i in (3, 2, 0, 1))]
    many = [f"index.csv line {i}: no" for i in range(30)]
    assert summary([result], many)[2:] == ["30 problems:", *(f"  {text}" for text in many[:10]), "  and 20 more"]
    assert summary([result], many[:1])[2] == "1 problem:"


def test_what_is_overwritten_is_told_as_made_and_not_as_there(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    arguments = run_arguments(listed, tiny_folder, tmp_path / "out", "--json")
    assert main(arguments) == 0
    for more, status, made in ((["--overwrite", "--dry-run"], "missing", 0), (["--overwrite"], "made", 4)):
        capsys.readouterr()
        assert main([*arguments, *more]) == 0
        *images, totals = map(json.loads, capsys.readouterr().out.splitlines())
        assert [image["status"] for image in images] == [status] * 4
        assert (totals["made"], totals["there"], totals["left"]) == (made, 0, 4 - made)
