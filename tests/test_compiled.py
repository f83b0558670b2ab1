"""The compiled network gives what the plain one gives, also to those who record and to those who differentiate."""

import pytest
import torch

from sdist.backbone import Backbone, load_backbone
from sdist.config import load_settings
from sdist.editing import Job, edit_batch, load_model, prepare
from sdist.hooks.attention import AttentionRecorder
from sdist.prediction import SOURCE, TARGET, predict

from .conftest import make_draw, progress, tiny_edit


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
    assert type(compiled.compiled._function).__name__ == "function"  # type: ignore[union-attr]


def test_a_gradient_through_the_network_takes_the_plain_one(tiny: Backbone, tiny_folder) -> None:
    compiled, recorder = load_backbone(str(tiny_folder), "cpu"), AttentionRecorder(TARGET, 1, 0)
    compiled.compile()
    grads = []
    for backbone in (tiny, compiled):
        p, z = run(backbone, recorder, 1, grad=True)
        grads.append(torch.autograd.grad(p.eps[TARGET].square().sum(), z)[0])
    torch.testing.assert_close(*grads)


def test_an_edit_takes_the_same_draws(picture, tiny_folder) -> None:
    results = []
    for compiled in (False, True):
        settings = load_settings("lusd", ["scale.threshold=0.02"], model=str(tiny_folder), steps=3, compile=compiled)
        backbone = load_model(settings)
        results += edit_batch(backbone, settings, [prepare(backbone, settings, Job(picture, "a cat", "a cat wearing a hat"))])
    assert results[0].attempts == results[1].attempts


def test_checkpointing_changes_memory_and_not_the_gradient(tiny_folder) -> None:
    grads, kept = [], []
    for checkpoint in (False, True):
        backbone = load_model(load_settings("cds", model=str(tiny_folder), checkpoint=checkpoint))
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            p, z = run(backbone, AttentionRecorder(TARGET, 1, 0), 1, grad=True)
        grads.append(torch.autograd.grad(p.eps[TARGET].square().sum(), z)[0])
        kept.append(sum(sizes))
    torch.testing.assert_close(*grads)
    assert kept[1] < kept[0] / 2
