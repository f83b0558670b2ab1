"""OpenVINO gives what the network gives, keeps its conversions on disk, and steps aside where it cannot."""

import logging
import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sdist.config.build import load_settings
from sdist.editors.loading import load_method
from sdist.edits.request import Request
from sdist.hooks.attach import record, steer
from sdist.hooks.attention import AttentionRecorder
from sdist.models import network_cache, openvino
from sdist.models.base import Backbone
from sdist.models.compiled import CompiledForward
from sdist.models.loading import load_backbone
from sdist.models.openvino import OpenVino
from sdist.prediction import SOURCE, TARGET, predict

from ..conftest import make_draw, progress, tiny_edit

pytest.importorskip("openvino")


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    return tmp_path / "kept" / "sdist" / "networks"


@pytest.fixture
def converted(tiny_folder) -> Backbone:
    backbone = load_backbone(str(tiny_folder), "cpu")
    backbone.compile("openvino")
    return backbone


def run(backbone: Backbone, b: int):
    recorder, edit, draw = (
        AttentionRecorder(TARGET, 1, 0),
        tiny_edit(backbone, b),
        make_draw(backbone, b, 500, dtype=torch.float32),
    )
    with torch.no_grad():
        p = predict(backbone, edit.source, edit, draw, (TARGET, SOURCE), (recorder,), progress(b))
    return p, p.recorded[recorder].refined(edit.focus)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)], ids=str)
def test_predictions_and_recorded_maps_are_those_of_the_network(tiny_folder, monkeypatch, dtype, tolerance: float) -> None:
    plain, converted = (load_backbone(str(tiny_folder), "cpu") for _ in range(2))
    for backbone in (plain, converted):
        nn.Module.to(backbone.denoiser, dtype)
    converted.compile("openvino")
    calls: list[int] = []
    run_form = openvino._Converted._run
    monkeypatch.setattr(
        openvino._Converted, "_run", lambda self, *given: calls.append(len(given[1][0])) or run_form(self, *given)
    )
    for b in (1, 2, 3, 4, 1, 2, 3, 4):  # the first of each number of rows is the network's own
        (expected, expected_map), (ours, ours_map) = run(plain, b), run(converted, b)
        for branch in (TARGET, SOURCE):
            torch.testing.assert_close(ours.eps[branch], expected.eps[branch], rtol=0, atol=tolerance)
        torch.testing.assert_close(ours_map, expected_map, rtol=1e-4, atol=tolerance)
    assert calls == [2, 4, 6, 8] * 2
    assert converted.engine == "openvino"
    assert converted.dtype == dtype


def test_the_first_numbers_of_rows_have_forms_of_their_own(converted: Backbone) -> None:
    for b in (1, 2, 3, 4):
        run(converted, b)
    network = converted.compiled._function
    assert [rows for _, rows in network._forms] == [2, 4, 0]


def test_a_conversion_is_kept_and_a_damaged_one_is_made_again(
    converted: Backbone, tiny_folder, kept, monkeypatch, caplog
) -> None:
    traces: list[None] = []
    traced = openvino._traced
    monkeypatch.setattr(openvino, "_traced", lambda *args: traces.append(None) or traced(*args))
    expected = run(converted, 1)[0].eps[TARGET]
    (place,) = kept.iterdir()
    file = place / "network.bin"
    for damage, count in ((lambda data: data, 1), (lambda data: data[:-1], 2), (lambda data: data[:100] + b"x" + data[101:], 3)):
        file.write_bytes(damage(file.read_bytes()))
        again = load_backbone(str(tiny_folder), "cpu")
        again.compile("openvino")
        torch.testing.assert_close(run(again, 1)[0].eps[TARGET], expected)
        assert len(traces) == count
    assert caplog.text.count("is damaged and is made again") == 2
    assert network_cache.sizes() == [sum(path.stat().st_size for path in place.iterdir())]
    network_cache.clear()
    assert not list(kept.iterdir())


def test_networks_that_were_used_longest_ago_give_way(kept, monkeypatch) -> None:
    def keep(key: str, used: int) -> None:
        network_cache.write(key, lambda xml, weights: (xml.write_text(key), weights.write_bytes(bytes(1000))))
        os.utime(kept / key, (used, used))

    monkeypatch.setattr(network_cache, "LARGEST", 2500)  # two of them, with their digests
    for used, key in enumerate("abc"):
        keep(key, used)
    assert {path.name for path in kept.iterdir()} == {"b", "c"}
    assert network_cache.read("b") == (kept / "b" / "network.xml", kept / "b" / "network.bin")  # used now
    keep("d", 3)
    assert {path.name for path in kept.iterdir()} == {"b", "d"}
    monkeypatch.setattr(network_cache, "LARGEST", 10)
    keep("e", 4)
    assert [path.name for path in kept.iterdir()] == ["e"]  # the newest stays


def test_other_weights_have_a_conversion_of_their_own(converted: Backbone, kept) -> None:
    run(converted, 1)
    with torch.no_grad():
        next(converted.denoiser.parameters())[-1, -1, -1, -1] += 1e-4
    converted.compile("openvino")
    run(converted, 1)
    assert len(list(kept.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_a_warning(converted: Backbone, kept, caplog) -> None:
    kept.parent.parent.mkdir(parents=True)
    kept.parent.write_text("a file")
    run(converted, 1)
    assert "the converted network is not kept" in caplog.text
    assert converted.engine == "openvino"


class Branching(nn.Module):
    """What a trace gets wrong: what it does depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        return (x * self.weight * (1 if len(x) < 3 else 2),)


class Raising(Branching):
    def forward(self, x: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        return (x * float(self.weight.sum().item()) if not torch.jit.is_tracing() else x / x.nosuch,)


@pytest.mark.parametrize(("network", "reason"), [(Branching(), "its outputs differ by"), (Raising(), "RuntimeError")])
def test_what_cannot_be_traced_runs_as_it_is(network: nn.Module, reason: str, caplog) -> None:
    ours = CompiledForward(network, OpenVino())
    with torch.no_grad():
        for rows in (2, 3, 3):
            x = torch.arange(1.0, 1 + rows)
            torch.testing.assert_close(ours(x), network(x, return_dict=False)[0])
    assert caplog.text.count("openvino steps aside") == 1
    assert reason in caplog.text
    ours.engine.stepped_aside = False  # as when another edit begins
    with torch.no_grad():
        ours(torch.ones(3))
    assert ours.engine.stepped_aside


@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_of_any_output_fails_the_check(place: int) -> None:
    expected = [torch.ones(2) for _ in range(3)]
    ours = [torch.full((2,), torch.nan) if i == place else torch.ones(2) for i in range(3)]
    assert not openvino._largest_error(ours, expected) <= openvino.TOLERANCES[torch.float32]
    assert openvino._largest_error(expected, expected) == 0


def test_steered_attention_makes_it_step_aside(converted: Backbone, tiny: Backbone, caplog) -> None:
    caplog.set_level(logging.INFO, logger="sdist")
    (layer,) = converted.layout.layers("cross")[:1]
    query, steering = f"{layer.name}.to_q", {layer.name: lambda q, k, v, attend: 2 * attend(q, k, v)}
    found = []
    for backbone in (tiny, converted):
        edit, draw = tiny_edit(backbone, 1), make_draw(backbone, 1, 500, dtype=torch.float32)
        with record(backbone, [query], slice(None)) as tape, steer(backbone, steering), torch.no_grad():
            p = predict(backbone, edit.source, edit, draw, (TARGET,), (), progress(1))
        found.append((p.eps[TARGET], tape[query]))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert caplog.text.count("openvino steps aside: this method changes layers") == 1
    assert converted.engine == "torch"


def test_an_edit_takes_the_same_draws_and_its_card_names_the_engine(picture, tiny_folder) -> None:
    results = []
    for engine in ("none", "openvino"):
        settings = load_settings("lusd", ["scale.threshold=0.02"], model=str(tiny_folder), steps=3, compile=engine)
        method = load_method(settings)
        results += method.edit([method.prepare(Request(picture, "a cat", "a cat wearing a hat"))])
    assert results[0].attempts == results[1].attempts
    assert [result.card["machine"]["engine"] for result in results] == ["torch", "openvino"]


def test_a_card_names_what_ran_its_own_edit(picture, tiny_folder) -> None:
    """On one model in memory: an edit that steers attention says nothing of those after it."""
    method = load_method(load_settings("dds", model=str(tiny_folder), steps=2, compile="openvino"))
    network, engines = method.model, []
    steering = {network.layout.layers("cross")[0].name: lambda q, k, v, attend: attend(q, k, v)}
    for block in (nullcontext, lambda: steer(network, steering), nullcontext):
        with block():
            (result,) = method.edit([method.prepare(Request(picture, "a cat", "a cat wearing a hat"))])
        engines.append(result.card["machine"]["engine"])
    assert engines == ["openvino", "torch", "openvino"]


@pytest.mark.parametrize(("name", "goes"), [("sdedit", True), ("instruct_pix2pix", True), ("lime", False), ("vimaedit", False)])
def test_samplers_that_steer_no_attention_have_engines(name: str, goes: bool) -> None:
    assert ("compile" not in load_settings(name).editor.ignores) == goes


def test_a_sampler_by_an_engine_makes_the_same_picture(picture, tiny_folder) -> None:
    images = []
    for engine in ("none", "openvino"):
        method = load_method(load_settings("sdedit", ["editor.num_inference_steps=4"], model=str(tiny_folder), compile=engine))
        (result,) = method.edit([method.prepare(Request(picture, "a cat", "a dog"))])
        images.append(np.asarray(result.image, int))
        assert result.card["machine"]["engine"] == {"none": "torch", "openvino": "openvino"}[engine]
    assert abs(images[0] - images[1]).max() <= 1
