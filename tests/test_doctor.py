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
from sdist.models.loading import load_backbone
from sdist.models.needs import Needs, peak, plans


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
    assert small["fits"][0]["with"] == ""
    assert main(["doctor", "--model", str(folder), "--device", "cpu"]) == 0
    assert "a step" in capsys.readouterr().out


def test_a_model_that_is_not_here_is_one_line(capsys) -> None:
    assert main(["doctor", "--model", "sdxl"]) == 2
    assert "the configurations of sdxl are not on this disk" in capsys.readouterr().err


def test_what_a_call_allocates_is_counted_while_it_is_held() -> None:
    with torch.device("meta"):
        network, x = nn.Sequential(*(nn.Linear(10, 10) for _ in range(3))), torch.randn(5, 10)
    with torch.no_grad():
        assert peak(network, lambda: network(x)) == 2 * 4 * 5 * 10  # what a layer reads and what it gives


def test_slower_ways_are_proposed_where_quick_ones_do_not_fit() -> None:
    needs = Needs(denoiser=100, layer=5, vae=10, encoders=50, row=10, codec=20)
    assert next(plans(needs, 4, 2, 190)) == ("", 190)
    assert next(plans(needs, 4, 2, 130)) == ("--parallel 1", 130)
    assert next(plans(needs, 1, 2, 120)) == ("--offload model", 120)
    assert next(plans(needs, 1, 2, 50)) == ("--offload group", 40)
    assert list(plans(needs, 1, 2, 10)) == []


def test_converted_networks_are_shown_and_removed(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = tmp_path / "sdist" / "networks" / "key"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(bytes(2_000_000))
    for arguments, said in (([], "1 files, 2 MB (sdist doctor --clear removes them)"), (["--clear"], "none")):
        assert main(["doctor", "--json", *arguments]) == 0
        assert json.loads(capsys.readouterr().out)["converted networks"] == {str(kept.parent): said}
    assert not kept.exists()
