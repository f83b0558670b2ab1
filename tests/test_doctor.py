"""sdist doctor --online asks for all models at once; --model computes what an edit needs, without weights."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from sdist.cli import main
from sdist.commands import doctor
from sdist.commands.needs import _ways
from sdist.config.build import load_settings
from sdist.models.catalogue import default_method
from sdist.models.loading import load_backbone
from sdist.models.needs import Needs, Ways, peak, plans


def not_there(source: str) -> str:
    time.sleep(0.05)
    return "not on this disk, and the hub gives ConnectError"


ANSWERS: dict[str, tuple[Callable[[str], str | None], str]] = {
    "there": (lambda source: None, "on the hub: CompVis/stable-diffusion-v1-4"),
    "no network": (not_there, "CompVis/stable-diffusion-v1-4: not on this disk, and the hub gives ConnectError"),
    "no answer": (lambda source: time.sleep(5), "CompVis/stable-diffusion-v1-4: the hub has not answered within 0.3 s"),
}


@pytest.mark.parametrize(("answer", "said"), ANSWERS.values(), ids=ANSWERS)
def test_the_hub_is_waited_for_once(monkeypatch, capsys, answer: Callable[[str], str | None], said: str) -> None:
    monkeypatch.setattr("sdist.models.catalogue.hub_problem", answer)
    monkeypatch.setattr(doctor, "ONLINE", 0.3)
    start = time.monotonic()
    doctor._ask_hub([f"owner/model{i}" for i in range(20)])
    assert time.monotonic() - start < 2
    assert main(["doctor", "--online", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert models["sd14"] == said
    assert models["tinyworld"].startswith("ready: ")


def test_what_an_edit_needs_is_computed_without_weights(tiny_folder: Path, tmp_path: Path, capsys) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "configs", ignore=shutil.ignore_patterns("*.safetensors"))
    reports = []
    for size in ("32x32", "64x64"):
        assert main(["doctor", "--model", str(folder), "--size", size, "--device", "cpu", "--json"]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    small, large = reports
    weights = sum(weight.numel() for weight in load_backbone(str(tiny_folder), "cpu").denoiser.parameters())
    assert small["weights"]["unet"] == weights
    assert small["bytes"]["denoiser"] == 4 * weights
    assert 2 < large["bytes"]["row"] / small["bytes"]["row"] < 5  # four times the latents, the same text
    assert 3 < large["bytes"]["codec"] / small["bytes"]["codec"] < 5
    assert [plan["with"].partition(" --parallel")[0] for plan in small["plans"]] == ["", "--storage fp8"]  # nothing leaves a CPU
    assert small["plans"][0]["fits"]
    assert main(["doctor", "--model", str(folder), "--device", "cpu"]) == 0
    assert "a step" in capsys.readouterr().out


@pytest.mark.parametrize(("method", "is_said"), [("lusd", True), ("dds", False)])
def test_a_model_that_nobody_tuned_is_told_how_to(tiny_folder: Path, capsys, method: str, is_said: bool) -> None:
    said = {}
    for model in (str(tiny_folder), "tinyworld"):
        assert main(["doctor", "--model", model, "--method", method, "--device", "cpu"]) == 0
        said[model] = " ".join(capsys.readouterr().out.split())
    line = f"step 0.488 and threshold 0.01 are a start, nobody tuned them: sdist calibrate --model {tiny_folder} --input FOLDER"
    assert (line in said[str(tiny_folder)]) is is_said
    assert "calibrate" not in said["tinyworld"]


def test_a_model_that_is_not_here_is_one_line(capsys) -> None:
    assert main(["doctor", "--model", "sdxl"]) == 2
    assert "the configurations of sdxl are not on this disk" in capsys.readouterr().err


def test_what_a_call_allocates_is_counted_while_it_is_held() -> None:
    with torch.device("meta"):
        network, x = nn.Sequential(*(nn.Linear(10, 10) for _ in range(3))), torch.randn(5, 10)
    with torch.no_grad():
        assert peak(network, lambda: network(x)) == 2 * 4 * 5 * 10  # what a layer reads and what it gives


def test_slower_ways_come_after_quick_ones() -> None:
    needs = Needs(denoiser=100, layer=5, vae=10, encoders=50, row=10, codec=20)
    every = Ways(("none", "model", "group"), 1 / 4)
    assert list(plans(needs, 1, 2, every)) == [
        ("", 130),
        ("--offload model", 120),
        ("--offload group", 40),
        ("--storage fp8", 55),
    ]
    assert list(plans(needs, 4, 2, Ways(("none",), None))) == [("", 190), ("--parallel 1", 130)]


@pytest.mark.parametrize(("method", "fp8"), [("dds", 1 / 4), ("cds", None), ("ids", None), ("ledits_pp", None)])
def test_only_ways_that_a_method_has_are_proposed(method: str, fp8: float | None) -> None:
    settings = load_settings(method)
    assert _ways(settings, "cpu", 4) == Ways(("none",), fp8)
    offloads = {"dds": ("model", "group"), "ledits_pp": ()}.get(method, ("model",))
    assert _ways(settings, "cuda", 4) == Ways(("none", *offloads), fp8)


def test_where_nobody_says_what_is_free_there_is_no_verdict(tiny_folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sdist.models.memory.free_bytes", lambda device: None)
    assert main(["doctor", "--model", str(tiny_folder), "--device", "cpu"]) == 0
    said = " ".join(capsys.readouterr().out.split())  # lines end where the folder's name is long
    assert "--storage fp8" in said
    assert "fits" not in said


@pytest.mark.parametrize("file", ["unet/config.json", "text_encoder/config.json", "vae/config.json", "tokenizer/tokenizer.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_text("{")], ids=["missing", "damaged"])
def test_configurations_that_are_not_whole_are_one_line(tiny_folder: Path, tmp_path: Path, capsys, file: str, damage) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "configs", ignore=shutil.ignore_patterns("*.safetensors"))
    damage(folder / file)
    assert main(["doctor", "--model", str(folder), "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith(f"sdist: error: {folder}: ")


def test_an_index_without_a_scheduler_is_one_line(tiny_folder: Path, tmp_path: Path, capsys) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "configs", ignore=shutil.ignore_patterns("*.safetensors"))
    index = json.loads((folder / "model_index.json").read_text())
    del index["scheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert main(["doctor", "--model", str(folder), "--device", "cpu"]) == 2
    assert "model_index.json lists no scheduler" in capsys.readouterr().err


def test_converted_networks_are_shown_and_removed(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = tmp_path / "sdist" / "networks" / "key"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(bytes(2_000_000))
    for arguments, said in (([], "1, 2 MB (sdist doctor --clear removes them)"), (["--clear"], "none")):
        assert main(["doctor", "--json", *arguments]) == 0
        report = json.loads(capsys.readouterr().out)["converted networks"]
        assert report == {str(kept.parent): f"{said}; up to 8 GB are kept"}
    assert not kept.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "tinyworld", "--clear"], "--clear does not go with --model: leave one of them out"),
        (["--model", "tinyworld", "--online"], "--online does not go with --model: leave one of them out"),
        (["--size", "32x32"], "--size is of an edit: say --model too, or leave it out"),
        (["--method", "dds"], "--method is of an edit: say --model too, or leave it out"),
        (["--model-config", "sdxl"], "--model-config is of an edit: say --model too, or leave it out"),
        (["--device", "cpu"], "--device is of an edit: say --model too, or leave it out"),
    ],
)
def test_options_that_would_not_be_read_are_refused(capsys, arguments: list[str], said: str) -> None:
    assert main(["doctor", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_the_edit_is_made_with_the_models_method(capsys) -> None:
    assert main(["doctor", "--model", "tinyworld", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == default_method("tinyworld")
