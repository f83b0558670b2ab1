"""`sdist calibrate`: the scale of any model from pairs that it knows, in the form that the other commands take."""

import json
import shutil
from pathlib import Path

import pytest

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.models.catalogue import MODELS, find_model

ROWS = "img_path,source_prompt,target_prompt\npicture.png,a cat,a cat wearing a hat\npicture.png,a red house,a house in snow\n"


@pytest.fixture
def folder(picture: Path, tmp_path: Path) -> Path:
    """Two pairs of one picture."""
    (tmp_path / "pairs" / "images").mkdir(parents=True)
    shutil.copy(picture, tmp_path / "pairs" / "images")
    (tmp_path / "pairs" / "index.csv").write_text(ROWS)
    return tmp_path / "pairs"


def test_a_folder_gives_a_model_its_scale(tiny_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["calibrate", "--model", str(tiny_folder), "--input", str(folder), "--draws", "5", "--steps", "20"]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["pairs"], report["draws"], report["path"]) == (2, 5, pytest.approx(20 * 0.08))
    rule, now = report["scales"]["by the rule"], report["scales"]["now"]
    assert rule["step"] / now["step"] == pytest.approx(rule["travel"] / now["travel"])
    assert (rule["refused"], now["threshold"]) == (
        pytest.approx(0.2),
        0.01,
    )  # two of ten draws: the quantile lies between the next

    assert rule["worst"] in (0.2, 0.4)

    assert main(words) == 0
    *_, values, yaml = capsys.readouterr().out.splitlines()
    assert values.startswith("--set scale.step=")
    settings = load_settings("lusd", values.removeprefix("--set ").split(), model=str(tiny_folder))
    assert settings.editor.optimizer.lr == pytest.approx(rule["step"], rel=5e-3)
    assert settings.editor.filter.threshold == pytest.approx(rule["threshold"], rel=5e-3)
    (folder / "mine.yaml").write_text(f"base: lusd\n{yaml}\n")
    assert load_settings(str(folder / "mine.yaml"), model=str(tiny_folder)).scale == settings.scale


def test_tinyworld_has_scenes_of_its_own(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    reports = []
    for _ in range(2):
        assert main(["calibrate", "--pairs", "2", "--draws", "4", "--json"]) == 0
        reports.append(json.loads(capsys.readouterr().out))
        assert "2 x 4 (pairs x draws) are few: below 6 x 8" in caplog.text
    assert reports[0] == reports[1]
    assert 0.5 < reports[0]["latents_sd"] < 1.5
    assert 0 < reports[0]["drift"] < 1


def test_rows_that_cannot_be_used_are_told(tiny_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["calibrate", "--model", str(tiny_folder), "--input", str(folder), "--draws", "2", "--pairs", "1", "--json"]
    (folder / "index.csv").write_text(ROWS.replace("picture", "nowhere", 1))
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "image 'nowhere.png' does not exist" in shown.err
    assert json.loads(shown.out)["pairs"] == 1


MISTAKES = {
    "another loss's step": (["--method", "dds"], "dds does not read a model's scale: calibrate a method with the unit_std"),
    "another editor": (["--method", "p2p"], "p2p does not read a model's scale"),
    "another optimizer": (["--set", "optimizer.name=Adam"], "lusd: the rule is that of SGD per element"),
    "a step that depends on the size": (["--set", "optimizer.scale=released"], "lusd: the rule is that of SGD per element"),
    "a walk": (
        ["--method", "dreamsampler", "--set", "normalizer=unit_std"],
        "dreamsampler: the rule is of draws that do not depend",
    ),
    "timesteps that descend": (
        ["--set", "timesteps=annealed"],
        "lusd: the rule is of draws that do not depend on the steps before",
    ),
    "a model of another world": (["--model", "sdxl"], "--model sdxl needs pairs that it knows: give --input FOLDER"),
    "no folder": (["--input", "nowhere"], "nowhere"),
    "no images": (["--pairs", "0"], "--pairs must be at least 1, got 0"),
    "one draw": (["--draws", "1"], "draws must be at least 2 and at most 300, the steps of the method, got 1"),
    "a model of instructions": (
        ["--model", "tinyworld-instruct"],
        "an InstructPix2Pix goes with --method instruct_pix2pix or lime",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_calibrated_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = MISTAKES[name]
    assert main(["calibrate", *words]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert (shown.out, shown.err.count("\n")) == ("", 1)


def test_which_models_have_constants_of_their_own() -> None:
    assert {name for name, model in MODELS.items() if model.is_tuned} == {"tinyworld", "tinyworld-flow", "sd15"}
    assert not find_model("owner/name").is_tuned
    assert find_model(MODELS["tinyworld"].sources[0]).is_tuned
