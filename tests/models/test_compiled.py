"""The compiled network gives what the plain one gives, also to those who record and to those who differentiate."""

import pytest
import torch
from torch import nn

from sdist.config.build import load_settings, resolve
from sdist.editors.loading import LoadedMethod, load_method
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.hooks.attach import add
from sdist.hooks.attention import AttentionRecorder
from sdist.hooks.low_rank import projections
from sdist.models import compiled as compiled_module
from sdist.models import inductor
from sdist.models.base import Backbone
from sdist.models.compiled import CompiledForward, engine_for
from sdist.models.devices import memory_format
from sdist.models.inductor import GRAPHS, Inductor, compile_options
from sdist.models.loading import load_backbone
from sdist.prediction import SOURCE, TARGET, predict

from ..conftest import make_draw, progress, tiny_edit


@pytest.fixture(autouse=True)
def without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo traces as ever; the graph that it finds is run as it is, which takes seconds instead of minutes."""
    monkeypatch.setattr(torch, "compile", lambda function, dynamic, options: _compile(function, dynamic=dynamic, backend="eager"))


_compile = torch.compile


def run(backbone: Backbone, recorder: AttentionRecorder, b: int, grad: bool = False):
    edit, draw = tiny_edit(backbone, b), make_draw(backbone, b, 500, dtype=torch.float32)
    z = edit.source.clone().requires_grad_(grad)
    with torch.set_grad_enabled(grad):
        return predict(backbone, z, edit, draw, (TARGET, SOURCE), (recorder,), progress(b)), z


def test_predictions_and_recorded_maps_are_those_of_the_plain_network(tiny: Backbone, tiny_folder) -> None:
    compiled, recorder = load_backbone(str(tiny_folder), "cpu"), AttentionRecorder(TARGET, 1, 0)
    compiled.compile()
    for b in (1, 2, 1):  # another shape, and back
        (plain, _), (ours, _) = run(tiny, recorder, b), run(compiled, recorder, b)
        for branch in (TARGET, SOURCE):
            torch.testing.assert_close(ours.eps[branch], plain.eps[branch], rtol=0, atol=1e-5)
        focus = plain.edit.focus
        torch.testing.assert_close(ours.recorded[recorder].refined(focus), plain.recorded[recorder].refined(focus))
    assert type(compiled.compiled._function).__name__ == "function"


def test_a_gradient_through_the_network_takes_the_plain_one(tiny: Backbone, tiny_folder) -> None:
    compiled, recorder = load_backbone(str(tiny_folder), "cpu"), AttentionRecorder(TARGET, 1, 0)
    compiled.compile()
    grads = []
    for backbone in (tiny, compiled):
        p, z = run(backbone, recorder, 1, grad=True)
        grads.append(torch.autograd.grad(p.eps[TARGET].square().sum(), z)[0])
    torch.testing.assert_close(*grads)


def test_what_adds_to_a_layer_makes_it_step_aside_where_autograd_is_off(tiny: Backbone, tiny_folder) -> None:
    compiled, recorder = load_backbone(str(tiny_folder), "cpu"), AttentionRecorder(TARGET, 1, 0)
    compiled.compile()
    additions = {next(iter(projections(tiny))): torch.ones_like}
    for grad in (True, False):
        found = []
        for backbone in (tiny, compiled):
            with torch.set_grad_enabled(grad), add(backbone, additions):
                found.append(run(backbone, recorder, 1, grad)[0].eps[TARGET].detach())
        torch.testing.assert_close(*found)
        assert compiled.compiled.engine.stepped_aside is not grad


@pytest.mark.parametrize(
    ("device", "options", "form"),
    [
        ("cpu", {"freezing": True}, torch.channels_last),
        ("cuda", torch._inductor.list_mode_options("reduce-overhead"), torch.channels_last),
        ("mps", {}, torch.contiguous_format),
    ],
)
def test_each_device_has_its_options_and_layout(device: str, options: dict, form: torch.memory_format) -> None:
    assert (compile_options(device), memory_format(device)) == (options, form)


@pytest.mark.parametrize(
    ("choice", "device", "dtype", "installed", "name"),
    [
        ("none", "cpu", torch.float32, True, None),
        ("auto", "cpu", torch.float32, True, "openvino"),
        ("auto", "cpu", torch.float32, False, None),
        ("auto", "cpu", torch.bfloat16, True, "openvino"),
        ("auto", "cuda", torch.float16, True, "inductor"),
        ("auto", "mps", torch.float32, True, None),
        ("inductor", "cpu", torch.float32, True, "inductor"),
        ("openvino", "cpu", torch.float32, True, "openvino"),
    ],
)
def test_an_engine_is_chosen(monkeypatch, choice, device, dtype, installed, name) -> None:
    monkeypatch.setattr(compiled_module, "find_spec", lambda package: object() if installed else None)
    engine = engine_for(choice, device, dtype)
    assert (engine and engine.name) == name


@pytest.mark.parametrize(
    ("device", "dtype", "installed", "message"),
    [
        ("cpu", torch.float32, False, r"needs openvino: pip install 'sdist\[fast\]'"),
        ("cuda", torch.float16, True, "runs on a CPU in fp32 or bf16, this is cuda in float16"),
        ("cpu", torch.float16, True, "runs on a CPU in fp32 or bf16, this is cpu in float16"),
    ],
)
def test_an_engine_that_cannot_be_had_is_one_line(monkeypatch, device, dtype, installed, message) -> None:
    monkeypatch.setattr(compiled_module, "find_spec", lambda package: object() if installed else None)
    with pytest.raises(UserError, match=message):
        engine_for("openvino", device, dtype)


@pytest.mark.parametrize(("recorded", "engine"), [(False, "none"), (True, "inductor")])
def test_older_cards_and_yamls_say_whether_it_was_compiled(recorded: bool, engine: str) -> None:
    assert resolve({"compile": recorded}, "a card").compile == engine


class Replayed(nn.Module):
    def __init__(self, inner: nn.Module | None) -> None:
        super().__init__()
        self.inner, self.memory = inner, nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x: torch.Tensor, return_dict: bool = True) -> torch.Tensor | tuple[torch.Tensor]:
        out = self.memory.copy_(x if self.inner is None else 2 * self.inner(x))
        return out if return_dict else (out,)


def test_results_outlive_the_next_replay_of_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Played by a network that answers from the same memory every time, as a graph does."""
    monkeypatch.setattr(torch, "compile", lambda function, dynamic, options: function)
    monkeypatch.setattr(inductor, "compile_options", lambda device: {GRAPHS: True})
    network = Replayed(Replayed(None))
    ours, tapes = CompiledForward(network, Inductor("cuda")), ({}, {})
    with torch.no_grad():
        for tape, x in zip(tapes, (1.0, 10.0), strict=True):
            with ours.watch({"inner": network.inner}, tape):
                tape["out"] = ours(torch.tensor([x]))
    assert [{name: float(value) for name, value in tape.items()} for tape in tapes] == [
        {"inner": 1.0, "out": 2.0},
        {"inner": 10.0, "out": 20.0},
    ]


def test_an_edit_takes_the_same_draws(picture, tiny_folder) -> None:
    results = []
    for compiled in ("none", "inductor"):
        settings = load_settings("lusd", ["scale.threshold=0.02"], model=str(tiny_folder), steps=3, compile=compiled)
        backbone = load_method(settings).model
        results += LoadedMethod(settings, backbone).edit(
            [LoadedMethod(settings, backbone).prepare(Request(picture, "a cat", "a cat wearing a hat"))]
        )
    assert results[0].attempts == results[1].attempts


def test_checkpointing_changes_memory_and_not_the_gradient(tiny_folder) -> None:
    grads, kept = [], []
    for checkpoint in (False, True):
        backbone = load_method(load_settings("cds", model=str(tiny_folder), checkpoint=checkpoint)).model
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            p, z = run(backbone, AttentionRecorder(TARGET, 1, 0), 1, grad=True)
        grads.append(torch.autograd.grad(p.eps[TARGET].square().sum(), z)[0])
        kept.append(sum(sizes))
    torch.testing.assert_close(*grads)
    assert kept[1] < kept[0] / 2
