"""Offloading changes no pixel, fp8 halves what is stored, and what does not go together is one line; all on the CPU."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.editors.loading import load_method
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.models.memory import GIB
from sdist.models.precision import lower
from sdist.models.residence import FP8, ROOM, bytes_of, suited_offload

from ..need import need

QUICK = ("scale.threshold=0.01", "scale.cross_level=1", "scale.self_level=0", "steps=2")


def edited(folder: Path, picture: Path, *overrides: str, **values: str) -> tuple[torch.Tensor, dict]:
    method = load_method(load_settings("lusd", [*QUICK, *overrides], model=str(folder), device="cpu", **values))
    (result,) = method.edit([method.prepare(Request(picture, "a cat", "a cat wearing a hat"))])
    return torch.frombuffer(bytearray(result.image.tobytes()), dtype=torch.uint8), result.card


@pytest.mark.parametrize("offload", ["model", "group"])
def test_offloading_changes_nothing(tiny_folder: Path, picture: Path, offload: str) -> None:
    need("accelerate")
    (plain, _), (moved, card) = edited(tiny_folder, picture), edited(tiny_folder, picture, offload=offload)
    assert torch.equal(plain, moved)
    assert card["settings"]["offload"] == offload
    assert "changed" not in card["model"]


def test_a_preview_waits_for_an_edit_only_where_networks_take_turns(tiny_folder: Path) -> None:
    z = torch.zeros(1, 4, 8, 8)
    for offload in ("none", "model"):
        model = load_method(load_settings("dds", [], model=str(tiny_folder), device="cpu", offload=offload)).model
        with ThreadPoolExecutor(1) as pool, model.alone:
            preview = pool.submit(model.decode, z)
            if offload == "none":
                assert preview.result(60).isfinite().all()
            else:
                with pytest.raises(TimeoutError):
                    preview.result(0.2)
        assert preview.result(60).isfinite().all()


@pytest.mark.parametrize("offload", ["none", "group"])
def test_fp8_stores_a_quarter_of_fp32_and_computes_in_it(tiny_folder: Path, picture: Path, offload: str) -> None:
    need("accelerate")
    whole = load_method(load_settings("dds", [], model=str(tiny_folder), device="cpu")).model
    model = load_method(load_settings("dds", [], model=str(tiny_folder), device="cpu", storage="fp8", offload=offload)).model
    assert 0.25 <= bytes_of(model.denoiser) / bytes_of(whole.denoiser) < 0.3  # norms stay as they were
    assert any(weight.dtype == FP8 for weight in model.denoiser.parameters())
    assert model.fingerprint == whole.fingerprint
    text, z = whole.embed(["a cat"]), torch.randn(1, 4, 8, 8)
    eps, exact = (network.estimate(z, torch.tensor([500]), text).eps for network in (model, whole))
    assert 0 < (eps - exact).std() < 0.1 * exact.std()


def test_an_edit_in_fp8_is_replayed(tiny_folder: Path, picture: Path, tmp_path: Path, capsys) -> None:
    where = ("--model", str(tiny_folder), "--output", str(tmp_path / "out.png"), "--storage", "fp8", "--offload", "model")
    assert main(["edit", str(picture), "--source", "a cat", "--target", "a hat", *where, "--set", *QUICK]) == 0
    card = json.loads((tmp_path / "out.json").read_text())
    assert (card["settings"]["storage"], card["model"]["precision"]) == ("fp8", "float32")
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "out.png")]) == 0
    assert capsys.readouterr().out == "identical\n"


def test_what_is_moved_is_the_least_that_must_be() -> None:
    assert suited_offload(5 * GIB, GIB // 3, 8 * GIB) == "none"
    assert suited_offload(5 * GIB, GIB // 3, 7 * GIB + 1) == "model"
    assert suited_offload(5 * GIB, GIB // 3, 6 * GIB) == "group"


def test_offloading_is_decided_again_where_the_gate_widens_the_precision(tiny_folder: Path, monkeypatch) -> None:
    need("accelerate")
    model = load_method(load_settings("dds", [], model=str(tiny_folder), device="cpu")).model
    model.denoiser.half()
    monkeypatch.setattr("sdist.models.residence.room", lambda device: ROOM)  # beside what the networks take as they are
    monkeypatch.setattr("sdist.models.precision.format_on", lambda device, precision: "fp16")  # as on CUDA
    model.place("auto", "same", torch.float16)
    assert model.residence.offload == "none"
    lower(model, "auto", 1e-9)
    assert model.dtype == torch.float32
    assert model.residence.offload != "none"


@pytest.mark.parametrize(
    ("method", "values", "match"),
    [
        ("lusd", {"compile": True, "offload": "group"}, "--compile and --offload group do not go together"),
        ("lusd", {"compile": True, "storage": "fp8"}, "--compile and --storage fp8 do not go together"),
        ("cds", {"offload": "group"}, "--offload group does not go with a loss that differentiates"),
        ("cds", {"storage": "fp8"}, "--storage fp8 does not go with a loss that differentiates"),
        ("ids", {"offload": "group"}, "--offload group does not go with a loss that differentiates"),
    ],
)
def test_what_does_not_go_together_is_one_line(method: str, values: dict, match: str) -> None:
    with pytest.raises(UserError, match=match):
        load_settings(method, **values)


def test_ids_without_its_steps_differentiates_nothing() -> None:
    assert not load_settings("ids", ["loss.iterations=0"], storage="fp8").editor.differentiates
