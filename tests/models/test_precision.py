"""Half precision for the network alone, and only where the filter cannot mistake its error for a gradient."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.editors.loading import load_method
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.models.precision import DTYPES, Floor, lower, measure

from ..conftest import read_json


@pytest.fixture
def fresh(tiny_folder: Path) -> Backbone:
    return load_backbone(str(tiny_folder), "cpu")


def test_the_floor_grows_with_coarser_formats_and_leaves_the_weights(fresh: Backbone) -> None:
    before = {name: value.clone() for name, value in fresh.denoiser.state_dict().items()}
    floors = {name: measure(fresh, dtype) for name, dtype in DTYPES.items()}
    assert floors["fp32"].error < 1e-6
    assert 3 * floors["fp16"].error < floors["bf16"].error
    assert floors["fp16"].error > 10 * floors["fp32"].error
    assert all(torch.equal(value, before[name]) for name, value in fresh.denoiser.state_dict().items())


def test_a_coarse_format_is_refused_with_the_figures(fresh: Backbone) -> None:
    floor = measure(fresh, torch.bfloat16)
    with pytest.raises(UserError, match=rf"bf16: SD .* error {floor.error:.1e} against fp32; .* allows {floor.error:.1e}"):
        lower(fresh, "bf16", 4.99 * floor.error)
    assert fresh.denoiser.dtype == torch.float32
    lower(fresh, "bf16", 5.01 * max(floor))
    assert fresh.denoiser.dtype == torch.bfloat16


def test_a_schedule_of_another_length_is_measured_at_the_same_levels(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "short")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(read_json(file) | {"num_train_timesteps": 500}))
    short = load_backbone(str(folder), "cpu")
    assert short.last_timestep == 499
    assert measure(short, torch.bfloat16).error > 0


def test_without_a_filter_nothing_is_refused(fresh: Backbone) -> None:
    lower(fresh, "fp16", None)
    assert fresh.denoiser.dtype == torch.float16
    assert fresh.vae.dtype == torch.float32


def test_a_filter_without_a_threshold_of_its_own_is_a_warning_with_the_figures(fresh: Backbone, caplog) -> None:
    settings = load_settings("lusd_quantile", model=fresh.source)
    floor = measure(fresh, torch.bfloat16)
    settings.editor.adapt(fresh, "bf16")
    assert fresh.denoiser.dtype == torch.bfloat16
    assert f"error {floor.error:.1e} against fp32; the filter has no threshold of its own" in caplog.text


def test_a_filter_without_a_threshold_does_not_pass_nan(fresh: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdist.models.precision.measure", lambda *_: Floor(float("nan"), 0.0))
    editor = load_settings("lusd_quantile", model=fresh.source).editor
    with pytest.raises(UserError, match="fp16: SD nan between equal prompts"):
        editor.adapt(fresh, "fp16")


def test_a_floor_that_is_not_a_number_is_refused(fresh: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdist.models.precision.measure", lambda backbone, dtype: Floor(float("nan"), 0.0))
    with pytest.raises(UserError, match="nan"):
        lower(fresh, "fp16", 1.0)


def test_auto_is_fp32_on_the_cpu_and_falls_back_on_cuda(
    fresh: Backbone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lower(fresh, "auto", 1e-9)
    assert (fresh.denoiser.dtype, caplog.text) == (torch.float32, "")
    monkeypatch.setattr("sdist.models.precision.measure", lambda backbone, dtype: Floor(0.0, 1.0))
    fresh.device = torch.device("cuda")
    lower(fresh, "auto", 1e-9)
    assert fresh.denoiser.dtype == torch.float32
    assert "precision stays fp32. fp16: " in caplog.text


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_only_the_network_is_coarse(tiny_folder: Path, picture: Path, precision: str) -> None:
    results = {}
    for own in ("fp32", precision):
        settings = load_settings("sbp", model=str(tiny_folder), steps=3, precision=own)
        method = load_method(settings)
        result = method.edit([method.prepare(Request(picture, "a cat", "a dog"))])[0]
        results[own] = torch.tensor(list(result.image.tobytes()), dtype=torch.float32)
    assert (results["fp32"] - results[precision]).abs().mean() < 3  # of 255


def test_the_command_takes_and_records_it(tiny_folder: Path, picture: Path, tmp_path: Path, capsys) -> None:
    edit = ["edit", str(picture), "--source", "a cat", "--target", "a dog", "--model", str(tiny_folder), "--steps", "1"]
    edit += ["--output", str(tmp_path), "--precision", "bf16", "--quiet"]
    assert main([*edit, "--method", "lusd", "--set", "filter.threshold=1e-6"]) == 2
    assert "Use --precision fp32" in capsys.readouterr().err
    assert main([*edit, "--method", "dds"]) == 0
    (card,) = tmp_path.glob("picture_*_seed0.json")
    assert read_json(card)["model"]["precision"] == "bfloat16"
    assert main(["replay", str(card.with_suffix(".png")), "--quiet"]) == 0
