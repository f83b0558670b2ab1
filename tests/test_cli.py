"""The real command line on a tiny pipeline: what it writes, what it refuses, and what survives a kill."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdist.cli import COMMANDS, main, parser
from sdist.files.images import png_bytes

PROMPTS = ("--source", "a cat", "--target", "a cat wearing a hat")
NAME = "picture_lusd_a-cat-wearing-a-hat"  # of what they make of picture.png
QUICK = ("--set", "scale.threshold=0.01", "scale.cross_level=1", "--set", "scale.self_level=0", "--steps", "2")


def edit(picture: Path, model: Path, output: Path, *more: str) -> int:
    return main(["edit", str(picture), *PROMPTS, "--model", str(model), "--output", str(output), *QUICK, *more])


def error(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sdist: error:")]
    assert len(lines) == 1
    return lines[0]


# --- edit and replay ---------------------------------------------------------------------------------------------------


def test_edit_writes_picture_panel_and_card(picture: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    assert edit(picture, tiny_folder, tmp_path / "out", "--seeds", "2") == 0
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {f"{NAME}_seed{s}{end}" for s in (0, 1) for end in (".png", "_panel.png", ".json")}
    assert f"{NAME}_seed1.png" in capsys.readouterr().out
    card = json.loads((tmp_path / "out" / f"{NAME}_seed1.json").read_text())
    with Image.open(tmp_path / "out" / f"{NAME}_seed1.png") as image:
        assert image.size == (32, 32)
        assert json.loads(image.text["sdist"]) == card
    with Image.open(tmp_path / "out" / f"{NAME}_seed1_panel.png") as image:
        assert image.size == (3 * 256 + 8, 256)
    assert card["words"] == ["hat"]
    assert (card["job"]["seed"], card["lanes"]) == (1, 2)
    assert len(card["attempts"]) == 2
    assert card["settings"]["steps"] == 2


def test_replay_gives_every_bit_again(picture: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    edit(picture, tiny_folder, tmp_path / "out", "--seeds", "2")
    capsys.readouterr()
    png = tmp_path / "out" / f"{NAME}_seed1.png"
    assert main(["replay", str(png), "--output", str(tmp_path / "again.png")]) == 0
    assert capsys.readouterr().out == "identical\n"
    assert np.array_equal(Image.open(png), Image.open(tmp_path / "again.png"))
    assert main(["replay", str(tmp_path / "again.png")]) == 0
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(picture, moved / picture.name)
    assert main(["replay", str(png)]) == 2
    assert "--images DIR" in error(capsys)
    assert main(["replay", str(png), "--images", str(moved)]) == 0
    Image.new("RGB", (32, 32)).save(moved / picture.name)
    assert main(["replay", str(png), "--images", str(moved)]) == 2
    assert "has changed" in error(capsys)


def test_replay_follows_the_recorded_tokens_and_says_what_changed(
    picture: Path, tiny_folder: Path, tmp_path: Path, capsys, monkeypatch, caplog
) -> None:
    edit(picture, tiny_folder, tmp_path / "out")
    png = tmp_path / "out" / f"{NAME}_seed0.png"
    monkeypatch.setattr("sdist.prompts.default_tagger", lambda: ("none", lambda words: ["XX"] * len(words)))
    capsys.readouterr()
    assert main(["replay", str(png)]) == 0
    monkeypatch.setattr("sdist.models.base.fingerprint", lambda networks: "of other weights")
    assert main(["replay", str(png)]) == 0
    assert "not those that made this picture" in caplog.text


@pytest.mark.parametrize("change", [{"lanes": 0}, {"job": {}}, {"versions": []}, {"machine": {"threads": 0}}])
def test_a_damaged_card_is_named(picture: Path, tiny_folder: Path, tmp_path: Path, capsys, change: dict) -> None:
    edit(picture, tiny_folder, tmp_path / "out")
    png = tmp_path / "out" / f"{NAME}_seed0.png"
    card = json.loads((tmp_path / "out" / f"{NAME}_seed0.json").read_text())
    with Image.open(png) as image:
        png.write_bytes(png_bytes(image.copy(), json.dumps(card | change)))
    capsys.readouterr()
    assert main(["replay", str(png)]) == 2
    assert "card is damaged" in error(capsys)


def test_replay_needs_a_card(picture: Path, tmp_path: Path, capsys) -> None:
    assert main(["replay", str(picture)]) == 2
    assert "no run card" in error(capsys)
    assert main(["replay", str(tmp_path / "nowhere.png")]) == 2
    assert "does not exist" in error(capsys)


@pytest.mark.parametrize("method", ["lusd", "lusd_difference", "dds"])
def test_a_mask_image_keeps_the_rest(picture: Path, tiny_folder: Path, tmp_path: Path, method: str) -> None:
    """It multiplies the mask of a method, and is the mask of one that has none."""
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :16] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert edit(picture, tiny_folder, tmp_path / "out", "--mask", str(tmp_path / "mask.png"), "--method", method) == 0
    panel = np.asarray(Image.open(tmp_path / "out" / f"{NAME.replace('lusd', method)}_seed0_panel.png"))
    shown = panel[:, 260:516]
    assert shown[:, 140:].max() < 60 < shown[:, :100].max()


@pytest.mark.parametrize("size", ["48x32", "keep"])
def test_other_sizes(tiny_folder: Path, tmp_path: Path, size: str) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(tmp_path / "x.png")
    assert edit(tmp_path / "x.png", tiny_folder, tmp_path / "out", "--size", size) == 0
    expected = (60, 40) if size == "keep" else (48, 32)
    assert Image.open(tmp_path / "out" / "x_lusd_a-cat-wearing-a-hat_seed0.png").size == expected


@pytest.mark.parametrize("kind", ["csv", "tensorboard", "wandb"])
def test_logs(picture: Path, tiny_folder: Path, tmp_path: Path, kind: str) -> None:
    assert edit(picture, tiny_folder, tmp_path / "out", "--log", kind, "--set", "log.images_every=1") == 0
    files = [p for p in (tmp_path / "out" / "logs").rglob("*") if p.is_file()]
    assert files
    if kind == "csv":
        with next(p for p in files if p.name == "metrics.csv").open() as file:
            columns = set(csv.DictReader(file).fieldnames or ())
        assert columns >= {"grad_std", "threshold", "attempts", "gamma", "beta", "mask_coverage", "step_norm", "timestep"}
        assert len([p for p in files if p.suffix == ".png"]) == 2
    if kind == "tensorboard":
        assert not any(b"hp_metric" in p.read_bytes() for p in files)
    if kind != "wandb":
        assert edit(picture, tiny_folder, tmp_path / "out", "--log", kind, "--overwrite", "--target", "a dog") == 0
        assert {p: p.read_bytes() for p in files} == {p: p.read_bytes() for p in files if p.is_file()}


def test_what_is_logged_stands_over_accepted_steps(picture: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """A row for every round; a rejected draw has the step that it was tried after, and no value that only accepted ones have."""
    more = (
        "--log",
        "csv",
        "--set",
        "log.images_every=1",
        "filter.threshold=0.1",
        "filter.decay=0.5",
        "--parallel",
        "1",
        "--steps",
        "4",
    )
    assert edit(picture, tiny_folder, tmp_path / "out", *more) == 0
    attempts = json.loads(next((tmp_path / "out").glob("picture*.json")).read_text())["attempts"]
    assert sum(attempts) > len(attempts) == 4
    with next((tmp_path / "out").rglob("metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if float(row["accepted"])] == [1, 2, 3, 4]
    expected = [k + (n == tries) for k, tries in enumerate(attempts) for n in range(1, tries + 1)]
    assert [int(row["step"]) for row in rows] == expected
    assert all(math.isnan(float(row["step_norm"] or "nan")) != bool(float(row["accepted"])) for row in rows)
    assert [float(row["attempts"]) for row in rows if float(row["accepted"])] == attempts
    assert not {"epoch", "hp_metric"} & rows[0].keys()
    pictures = sorted(path.name for path in (tmp_path / "out" / "logs").rglob("edit_*.png"))
    assert pictures == [f"edit_{step:05d}.png" for step in (1, 2, 3, 4)]


def test_every_image_of_a_run_has_its_own_log_and_an_edit_made_again_a_new_one(
    listed: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    more = ["--log", "csv", "--seeds", "2", "--parallel", "2", "--set", "log.images_every=1"]
    arguments = [*run_arguments(listed, tiny_folder, tmp_path / "out"), *more]
    assert main(arguments) == 0
    results = sorted(path.name.removesuffix("_panel.png") for path in (tmp_path / "out").glob("*_panel.png"))
    assert sorted(path.name for path in (tmp_path / "out" / "logs" / "csv").iterdir()) == results
    for name in results:
        folder = tmp_path / "out" / "logs" / "csv" / name
        with (folder / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["accepted"] == "1"]
        assert [(row["image"], row["seed"], row["step"]) for row in rows] == [(name, name[-1], "1"), (name, name[-1], "2")]
        assert len(list(folder.glob("edit_*.png"))) == 2
    assert main([*arguments, "--overwrite", "--steps", "1"]) == 0
    assert len(list((tmp_path / "out" / "logs").rglob("*.png"))) == len(results)


def test_existing_results_are_not_replaced_unasked(picture: Path, tiny_folder: Path, tmp_path: Path, capsys, caplog) -> None:
    assert edit(picture, tiny_folder, tmp_path) == 0
    before = (tmp_path / f"{NAME}_seed0.png").read_bytes()
    capsys.readouterr()
    assert edit(picture, tiny_folder, tmp_path) == 0
    assert f"already there: {tmp_path / NAME}_seed0.png" in caplog.text
    assert capsys.readouterr().out.startswith(str(tmp_path / f"{NAME}_seed0.png"))
    assert (tmp_path / f"{NAME}_seed0.png").read_bytes() == before
    assert edit(picture, tiny_folder, tmp_path, "--overwrite") == 0


# --- bad input ---------------------------------------------------------------------------------------------------------

BAD = {
    "a file that is not there": (["nowhere.png"], "does not exist"),
    "an empty target": (["PICTURE", "--target", " "], "target prompt is empty"),
    "identical prompts": (["PICTURE", "--target", "a  cat"], "identical"),
    "an unknown method": (["PICTURE", "--method", "lusdd"], "did you mean 'lusd'"),
    "an unknown key": (["PICTURE", "--set", "optimizer.lrr=1"], "unknown key 'lrr' in optimizer"),
    "a bad value": (["PICTURE", "--set", "optimizer.lr=fast"], "optimizer.lr"),
    "an unknown model": (["PICTURE", "--model", "tinyword"], "did you mean 'tinyworld'"),
    "an unknown device": (["PICTURE", "--device", "tpu"], "device 'tpu' is not on this machine: have cpu"),
    "a bad size": (["PICTURE", "--size", "30x30"], "divisible by 4"),
    "a word that is not there": (["PICTURE", "--words", "hut"], "did you mean 'hat'"),
    "two masks": (["PICTURE", "--set", "regularizers.difference_mask={}"], "attention_mask and difference_mask are masks"),
    "a long prompt": (["PICTURE", "--target", "cat " * 40], "this model reads 24"),
    "no seeds": (["PICTURE", "--seeds", "0"], "--seeds"),
    "prompts of the same tokens": (["PICTURE", "--target", "A CAT"], "the same to this model"),
    "a timestep past the end": (["PICTURE", "--set", "timesteps.t_max=5000"], "last timestep is 999"),
    "a step that leads to infinity": (["PICTURE", "--set", "optimizer.lr=1e38"], "not finite"),
    "a name that is too long": (["x" * 300 + ".png"], "too long"),
    "a missing level": (["PICTURE", "--set", "scale.cross_level=7"], "have levels"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_code_2(name: str, picture: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    given, message = BAD[name]
    given = [str(picture) if word == "PICTURE" else word for word in given]
    arguments = ["edit", "--source", "a cat", "--target", "a cat wearing a hat", "--output", str(tmp_path / "out")]
    assert main([*arguments, "--model", str(tiny_folder), *QUICK, *given]) == 2
    assert message in error(capsys)
    assert not list((tmp_path / "out").glob("*.png")) if (tmp_path / "out").exists() else True


def test_a_folder_that_cannot_be_written(picture: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    assert edit(picture, tiny_folder, tmp_path / "file" / "out") == 2
    assert "cannot be written" in error(capsys)


def test_a_link_that_leads_to_no_folder(picture: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    assert edit(picture, tiny_folder, tmp_path / "out") == 2
    assert "cannot be written: it is a link that leads to no folder" in error(capsys)


def test_the_home_of_the_user_may_be_meant(picture: Path, tiny_folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert edit(picture, tiny_folder, Path("~/x.png")) == 0
    assert (tmp_path / "home" / "x.png").is_file()


@pytest.mark.parametrize("words", ["", ",", " , "])
def test_words_that_name_none_are_refused(picture: Path, tiny_folder: Path, tmp_path: Path, capsys, words: str) -> None:
    with pytest.raises(SystemExit):
        edit(picture, tiny_folder, tmp_path / "out", "--words", words)
    assert f"argument --words: names no word, got {words!r}" in error(capsys)


def test_a_disk_that_is_full_before_the_image_keeps_no_card_of_it(
    picture: Path, tiny_folder: Path, tmp_path: Path, capsys, monkeypatch
) -> None:  # fmt: skip
    left = [1, 1]  # of the card, and of the folder after it

    def full(fd: int) -> None:
        if not left:
            raise OSError(28, "No space left on device")
        left.pop()

    monkeypatch.setattr(os, "fsync", full)
    assert edit(picture, tiny_folder, tmp_path / "out") == 2
    assert "_panel.png: the disk is full" in error(capsys)
    assert not (tmp_path / "out").exists()  # nor the folder, which it had made


def test_a_full_disk(picture: Path, tiny_folder: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert edit(picture, tiny_folder, tmp_path / "out") == 2
    assert "the disk is full" in error(capsys)
    assert not (tmp_path / "out").exists()  # nor the folder, which it had made


def test_a_pickled_model_is_not_loaded(picture: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    assert edit(picture, model, tmp_path / "out") == 2
    assert "could not be loaded" in error(capsys)


@pytest.mark.parametrize("damage", ["cut", "empty"])
def test_a_damaged_model_is_named(picture: Path, tiny_folder: Path, tmp_path: Path, capsys, damage: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    weights = model / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000] if damage == "cut" else b"")
    assert edit(picture, model, tmp_path / "out") == 2
    assert "could not be loaded" in error(capsys)


NO_NUMBER = {
    "edit x.png --steps x": "--steps: must be a whole number, got 'x'",
    "verify x --tolerance y": "must be a number, got 'y'",
}


@pytest.mark.parametrize(("words", "message"), NO_NUMBER.items())
def test_what_is_no_number_is_said_in_words(capsys, words: str, message: str) -> None:
    with pytest.raises(SystemExit):
        main(words.split())
    assert message in error(capsys)


def test_wrong_options_are_one_line(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["edit", "x.png", "--target", "a", "--log", "tensorbord"])
    assert stopped.value.code == 2
    assert "tensorbord" in error(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("edit x.png --target a --sed 7", "unknown option --sed, did you mean --seed? (see sdist edit --help)"),
        ("edit x.png --targt a", "unknown option --targt, did you mean --target? (see sdist edit --help)"),
        ("run --in x --output y", "unknown option --in, did you mean --input? (see sdist run --help)"),
        ("sweep ablation --lst", "unknown option --lst, did you mean --list? (see sdist sweep --help)"),
        ("compare a --qqq=1", "unknown option --qqq (see sdist compare --help)"),
        ("tinyworld quality --see 3", "unknown option --see, did you mean --seed? (see sdist tinyworld quality --help)"),
        ("--versio doctor", "unknown option --versio, did you mean --version? (see sdist --help)"),
        ("doctor now", "unexpected now (see sdist doctor --help)"),
    ],
)
def test_an_option_is_never_shortened_and_an_unknown_one_names_the_nearest(capsys, words: str, message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words.split())
    assert stopped.value.code == 2
    assert error(capsys) == f"sdist: error: {message}"


def test_what_follows_two_dashes_is_no_option() -> None:
    assert parser().parse_args(["edit", "--target", "a", "--", "--x.png"]).image == Path("--x.png")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys, command: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: sdist {command} ")


def test_seed_is_one_seed(picture: Path, tiny_folder: Path, tmp_path: Path) -> None:
    assert edit(picture, tiny_folder, tmp_path / "out", "--seed", "7") == 0
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {f"{NAME}_seed7.json"}


# --- run ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A folder in the released format with four rows."""
    folder = tmp_path / "input"
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        rows.append([f"{i}.png", "a cat" if i else "", "a cat wearing a hat"])
    write_index(folder, rows)
    return folder


def write_index(folder: Path, rows: list[list[str]]) -> None:
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["img_path", "source_prompt", "target_prompt"], *rows])


def run_arguments(folder: Path, model: Path, output: Path, *more: str) -> list[str]:
    return ["run", "--input", str(folder), "--output", str(output), "--model", str(model), *QUICK, *more]


def pixels_of(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}


def test_run_names_results_by_row_and_seed_and_skips_what_is_there(
    listed: Path, tiny_folder: Path, tmp_path: Path, capsys
) -> None:
    arguments = run_arguments(listed, tiny_folder, tmp_path / "out", "--parallel", "3", "--seeds", "2")
    assert main(arguments) == 0
    assert {f"{i}_seed{s}.png" for i in range(4) for s in (0, 1)} <= set(pixels_of(tmp_path / "out"))
    assert "8 of 8 made, 0 already there, 0 failed\n" in capsys.readouterr().out
    times = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert main(arguments) == 0
    assert "0 of 8 made, 8 already there, 0 failed\n" in capsys.readouterr().out
    assert times == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}


def test_bad_rows_are_named_by_line_and_the_others_run(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    rows = [
        ["0.png", "a cat", "a cat wearing a hat"],
        ["../../etc/passwd", "a", "b"],
        ["none.png", "a", "b"],
        ["1.png", "a cat", ""],
        ["2.png", "a cat", "a cat"],
        ["3.png"],
        ["1.png", "a cat", "a dog"],
    ]
    write_index(listed, rows)
    assert main(run_arguments(listed, tiny_folder, tmp_path / "out")) == 2
    captured = capsys.readouterr()
    for line, message in {3: "leaves the folder", 4: "does not exist", 5: "empty", 6: "identical", 7: "needs 3 fields"}.items():
        assert any(f"line {line}:" in text and message in text for text in captured.err.splitlines())
    assert "2 of 7 made, 0 already there, 0 failed, 5 refused\n" in captured.out
    assert {p.name for p in (tmp_path / "out").glob("*.json")} == {"0_seed0.json", "1_2_seed0.json"}


def test_hostile_rows_do_not_stop_the_others(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    (listed / "images" / "loop.png").symlink_to("loop.png")
    names = ["x" * 300 + ".png", "loop.png", "a\0b.png", "images\xff.png"]
    lines = ["img_path,source_prompt,target_prompt", *(f"{name},a cat,a dog" for name in names)]
    lines += [f"0.png,a cat,{'a dog ' * 40_000}", "1.png,a cat,a dog"]
    (listed / "index.csv").write_bytes("\n".join(lines).encode("latin-1"))
    assert main(run_arguments(listed, tiny_folder, tmp_path / "out")) == 2
    captured = capsys.readouterr()
    named = [line.split(":")[2].split()[-1] for line in captured.err.splitlines() if "error" in line]
    assert sorted(named) == list("23456")
    assert "1 of 6 made, 0 already there, 0 failed, 5 refused\n" in captured.out


def test_results_of_another_method_are_not_taken_for_finished(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    arguments = run_arguments(listed, tiny_folder, tmp_path / "out")
    assert main(arguments) == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert main([*arguments, "--set", "seed=0", "--method", "dds"]) == 2
    assert "0_seed0.png was made by method lusd, this call is dds (4 results in all); --changed makes" in error(capsys)
    write_index(listed, [["0.png", "", "a cat wearing a hat"], ["1.png", "a cat", "a dog"]])
    assert main(arguments) == 2
    assert "index.csv line 3: 1_seed0.png was made with a different target prompt; --changed makes it again" in error(capsys)
    (tmp_path / "out" / "problems.txt").unlink()
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}


def test_each_queue_is_a_wandb_run_of_its_own(listed: Path, tiny_folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sdist.jobs.engines.local.QUEUE", 2)
    assert main(run_arguments(listed, tiny_folder, tmp_path / "out", "--parallel", "2", "--log", "wandb")) == 0
    assert len(list((tmp_path / "out" / "logs" / "wandb").glob("offline-run-*"))) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"a,b\n1,2\n", "no column img_path"), (b"\xff\xfe\x00", "UTF-8")],
)
def test_a_bad_index(tiny_folder: Path, tmp_path: Path, capsys, content: bytes | None, message: str) -> None:
    folder = tmp_path / "input"
    folder.mkdir()
    if content is not None:
        (folder / "index.csv").write_bytes(content)
    assert main(run_arguments(folder, tiny_folder, tmp_path / "out")) == 2
    assert message in error(capsys)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_ends_with_the_same_files(
    listed: Path, tiny_folder: Path, tmp_path: Path, how: signal.Signals
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    more = ("--parallel", "2", "--steps", "6")
    assert main(run_arguments(listed, tiny_folder, whole, *more)) == 0
    command = [sys.executable, "-m", "sdist", *run_arguments(listed, tiny_folder, broken, *more, "--steps", "6")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while process.poll() is None and not list(broken.glob("*.png")):
        time.sleep(0.002)
    process.send_signal(how)
    _, stderr = process.communicate()
    if how == signal.SIGINT and process.returncode:
        assert process.returncode == 130
        assert "Traceback" not in stderr
    for picture in broken.glob("*.png"):
        Image.open(picture).load()  # whole or absent, never half
    assert main(run_arguments(listed, tiny_folder, broken, *more)) == 0
    assert {p.name for p in broken.iterdir()} == {p.name for p in whole.iterdir()}
    for name, pixels in pixels_of(whole).items():
        assert np.array_equal(pixels, pixels_of(broken)[name])


# --- the rest ----------------------------------------------------------------------------------------------------------


def test_methods_lists_every_component(capsys) -> None:
    assert main(["methods", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"lusd", "dds_lusd"} <= set(listed["methods"])
    assert {"loss", "filter", "normalizer", "gamma", "regularizer", "editor"} <= set(listed["components"])
    assert listed["components"]["loss"]["dds"]["defaults"]["guidance_scale"] == 7.5
    assert main(["methods"]) == 0
    assert "std_threshold" in capsys.readouterr().out


def test_doctor(capsys) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "cpu" in report["devices"]
    assert {"tinyworld", "sd15", "sd21"} <= set(report["models"])
    assert "h94/IP-Adapter/models/ip-adapter_sd15.safetensors" in report["image guidance"]["sd15"]
    assert main(["doctor"]) == 0
    assert "nouns are found by" in capsys.readouterr().out


def test_help_and_import_need_no_torch() -> None:
    code = (
        "import sys, sdist, sdist.cli; p = sdist.cli.parser(); p.format_help();"
        "sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
