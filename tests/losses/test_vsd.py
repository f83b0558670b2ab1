"""VSD: SDS without its noise while the LoRA has no effect, a LoRA that learns the image, and torch's Adam."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import sdist
from sdist.diffusion import per_image
from sdist.distillation.distiller import ScoreDistiller
from sdist.distillation.method import Method
from sdist.errors import UserError
from sdist.hooks.low_rank import LowRank
from sdist.losses.base import predict_for
from sdist.losses.sds import SDS
from sdist.losses.vsd import VSD
from sdist.models.base import Backbone
from sdist.prediction import TARGET, Prediction, Progress, State, predict

from ..conftest import make_draw, tiny_edit


def predicted(
    network: Backbone, loss: VSD, state: State, seed: int = 0, step: int = 0, rows: tuple[int, ...] = (0, 1)
) -> Prediction:
    where = torch.tensor(rows)
    edit = tiny_edit(network, 2).narrow(where)
    draw = make_draw(network, 2, [300, 700], seed, dtype=torch.float32).narrow(where)
    progress = Progress(where, torch.full_like(where, step), 200)
    return predict_for(loss, network, edit.source + 0.3, edit, draw, loss.branches, loss.hooks, progress, state)


def trained(network: Backbone, loss: VSD, steps: int) -> State:
    state = State(2)
    for step in range(steps):
        p = predicted(network, loss, state, step + 1, step)
        loss.accepted(loss.gradient(p), p)
    return state


@pytest.mark.parametrize("kind", ["tiny", "tiny_v"])
def test_without_an_effect_of_the_lora_it_is_sds_with_the_targets_own_prediction_for_the_noise(
    kind: str, request: pytest.FixtureRequest
) -> None:
    network, loss = request.getfixturevalue(kind), VSD(7.5)
    p = predicted(network, loss, State(2))
    sds = SDS(7.5, "sigma2")
    bare = predict(network, p.latents, p.edit, p.draw, [TARGET, *sds.branches])
    rest = per_image(p.draw.sigma**2) * (p.draw.noise - bare.eps[TARGET])
    torch.testing.assert_close(loss.gradient(p), sds.gradient(bare) + rest, rtol=1e-4, atol=1e-5)


def test_the_lora_learns_the_noise_of_draws_that_it_has_not_seen(tiny: Backbone) -> None:
    loss = VSD(lr=0.01)
    state = trained(tiny, loss, 60)

    def missed(state: State) -> torch.Tensor:
        draws = [predicted(tiny, loss, state, seed, 60) for seed in range(1000, 1010)]
        gaps = [p.earlier.eps[TARGET] - p.draw.noise for p in draws if p.earlier is not None]
        return torch.stack([gap.square().flatten(1).mean(1) for gap in gaps]).mean(0)

    assert (missed(state) < 0.9 * missed(State(2))).all()


def test_its_steps_are_those_of_torchs_adam(tiny: Backbone) -> None:
    loss, state = VSD(lr=0.01), State(2)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter], lr=0.01)
    for step in range(3):
        p = predicted(tiny, loss, state, step + 1, step)
        assert p.earlier is not None
        (slope,) = p.earlier.recorded.values()
        parameter.data = slope.at.clone() if step == 0 else parameter.data
        parameter.grad = slope.values
        optimizer.step()
        loss.accepted(loss.gradient(p), p)
    torch.testing.assert_close(state.rows("values", torch.arange(2), parameter.data), parameter.data, rtol=1e-4, atol=1e-6)


def test_an_image_does_not_depend_on_its_company_and_a_rejected_draw_teaches_nothing(tiny: Backbone) -> None:
    loss = VSD(lr=0.01)
    together, alone = trained(tiny, loss, 2), State(2)
    for step in range(2):
        predicted(tiny, loss, alone, 77, step, (1,))  # a draw that is not accepted
        p = predicted(tiny, loss, alone, step + 1, step, (1,))
        loss.accepted(loss.gradient(p), p)
    expected = loss.gradient(predicted(tiny, loss, together, 9, 2))[1:]
    found = loss.gradient(predicted(tiny, loss, alone, 9, 2, (1,)))
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-4)
    assert alone.large["values"].keys() == {1}


@contextmanager
def failing(layer: torch.nn.Module) -> Iterator[None]:
    """In the block a call of the layer is a ZeroDivisionError."""
    handle = layer.register_forward_pre_hook(lambda module, given: 1 / 0)
    try:
        yield
    finally:
        handle.remove()


def test_an_edit_leaves_the_model_as_it_was_also_after_an_exception(tiny_folder: Path, picture: Path) -> None:
    loaded = sdist.load("vsd", str(tiny_folder), settings=["steps=2"])
    before = {name: value.clone() for name, value in loaded.model.denoiser.state_dict().items()}
    request = sdist.Request(picture, "a cat", "a cat wearing a hat")
    (result,) = loaded.edit([loaded.prepare(request)])
    with pytest.raises(UserError, match="ZeroDivisionError"), failing(loaded.model.denoiser.conv_out):
        loaded.edit([loaded.prepare(request)])
    (again,) = loaded.edit([loaded.prepare(request)])
    assert result.image.tobytes() == again.image.tobytes()
    assert not any(module._forward_hooks for module in loaded.model.denoiser.modules())
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.denoiser.state_dict().items())


def test_a_slope_that_is_not_finite_ends_its_image_alone_and_is_named(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflowing(*inputs: object, **options: object) -> tuple[torch.Tensor]:
        (slope,) = grad(*inputs, **options)
        slope[1, 0] = torch.inf
        return (slope,)

    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", overflowing)
    distiller = ScoreDistiller(tiny, tiny_edit(tiny, 2), Method(VSD()), [(0, "a"), (0, "b")])
    assert not distiller.direction()[1].any()
    assert distiller.step.tolist() == [1, 0]
    assert distiller.failures.keys() == {1}
    assert distiller.failures[1].startswith("the gradient of vsd's LoRA is not finite; use --precision fp32: step 0, timestep")


def test_the_lora_of_an_image_is_drawn_when_the_image_begins(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    state = trained(tiny, VSD(), 1)
    monkeypatch.setattr(LowRank, "start", None)
    predicted(tiny, VSD(), state, 1, 1)


def test_only_the_images_that_are_being_edited_have_a_lora(tiny: Backbone) -> None:
    names = [(0, name) for name in "abcd"]
    distiller = ScoreDistiller(tiny, tiny_edit(tiny, 4), Method(VSD(), steps=2), names, parallel=2)
    large, having = distiller.states.loss.large, []
    while not distiller.finished:
        distiller.direction()
        having.append([sorted(large[name]) for name in ("values", "mean", "square")])
    assert having == [[[0, 1]] * 3, [[]] * 3, [[2, 3]] * 3, [[]] * 3]


def test_moments_that_do_not_fit_are_tried_again_with_fewer_draws(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(self: State, name: str, images: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        if name == "square" and len(like) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return allocate(self, name, images, like)

    allocate = State.rows
    monkeypatch.setattr(State, "rows", rows)
    distiller = ScoreDistiller(tiny, tiny_edit(tiny, 2), Method(VSD()), [(0, "a"), (0, "b")])
    distiller.direction()
    assert (distiller.step.tolist(), distiller.schedule.parallel) == ([0, 0], 1)
    distiller.direction()
    assert distiller.step.tolist() == [1, 0]


def test_what_it_cannot_do_is_one_line(tiny_folder: Path, picture: Path) -> None:
    with pytest.raises(UserError, match="rank must be at least 1 and lr at least 0, got 0"):
        VSD(rank=0)
    with pytest.raises(UserError, match="set checkpoint to false"):
        sdist.edit(picture, "a cat", "a cat wearing a hat", model=str(tiny_folder), method="vsd", settings=["checkpoint=true"])
