"""What every component of a method must do, asked of one: for the tests of a package with components of its own.

>>> from sdist.contract import check
>>> def test_my_loss():
...     check(MyLoss(strength=0.3))
"""

from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .denoising.base import Inversion, Level, Solver, StepNoise, WalkBack, levels, timesteps
from .denoising.solvers.ddim import DDIM
from .diffusion import Estimate, Latents, per_image, size_of
from .draws import DrawKey, RandomSampler
from .errors import UserError
from .filters import Filter
from .gammas import Gamma
from .losses.base import Loss, predict_for
from .models.base import Backbone
from .models.loading import load_backbone
from .normalizers import Normalizer
from .prediction import NULL, TARGET, Draw, Edit, Prediction, Progress, State, predict
from .regions.base import Region, RegionSource, grid_of
from .regularizers.base import Regularizer
from .regularizers.mask import AveragedMask, MaskRegularizer
from .timesteps import Timesteps

SIDE = 16  # of latents, at most
STEPS = 10  # of a run
LAST = 999  # timestep of a model
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # what company may change, by rounding
FEW = 0.02  # part of a region's cells whose cluster rounding may change
EXACT = {"rtol": 0.0, "atol": 0.0}
PROMPTS = {"target": "a red balloon in the snow", "source": "a field of snow", "null": "", "negative": "snow"}


def check(component: Any, network: Backbone | None = None) -> None:
    """Asks a loss, regularizer, filter, normalizer, gamma, timesteps, solver, inversion or region whether it keeps its promises.

    One result per image, whatever the company; finite; without a state of its own; arguments left as they were. `network` is the
    model that predicts for it, by default the embedded one. Raises AssertionError that says which promise is broken, and
    UserError for what is no component.
    """
    asked = next((ask for kind, ask in QUESTIONS.items() if isinstance(component, kind)), None)
    if asked is None:
        names = ", ".join(kind.__name__ for kind in QUESTIONS)
        raise UserError(f"{type(component).__name__} is none of {names}: give a component that was made, such as MyLoss()")
    _check_class(component)
    asked(component, network or _embedded())


@cache
def _embedded() -> Backbone:
    return load_backbone("tinyworld", "cpu")


# --- promises -----------------------------------------------------------------------------------------------------------


def _check_class(component: Any) -> None:
    text = type(component).__doc__ or ""
    promise(
        bool(text) and not text.startswith(f"{type(component).__name__}("),
        "it has a docstring, whose first line `sdist methods` shows",
    )
    promise(is_dataclass(component), "it is a dataclass, whose fields a yaml may set")
    for field in fields(component):
        try:
            setattr(component, field.name, getattr(component, field.name))
        except FrozenInstanceError:
            continue
        promise(False, "it is frozen: @dataclass(frozen=True)")


def _check_loss(loss: Loss, network: Backbone) -> None:
    p = predicted(network, loss)
    before = {branch: eps.detach().clone() for branch, eps in p.eps.items()}
    with torch.set_grad_enabled(loss.graph):
        gradient = loss.gradient(p)
    _check_latents("gradient", gradient, p.latents)
    promise(bool(gradient.abs().max() > 0), "its gradient is not zero everywhere")
    promise(all(torch.equal(before[branch], eps) for branch, eps in p.eps.items()), "it leaves predictions as they were")
    held = any(x.grad is not None or x.requires_grad for x in network.denoiser.parameters())
    promise(not held, "it leaves the model's weights without gradients")
    with torch.set_grad_enabled(loss.graph):
        same("its gradient asked again", loss.gradient(predicted(network, loss)), gradient, EXACT)
        _check_alone("gradient", gradient, lambda row: loss.gradient(predicted(network, loss, [row])))


def _check_regularizer(regularizer: Regularizer, network: Backbone) -> None:
    regularizer = regularizer.adapted(network, network.scale)
    p = predicted(network, regularizer)
    gradient = _noise(p.latents.shape, 1)
    before = gradient.clone()
    out = regularizer(gradient, p)
    promise(torch.equal(gradient, before), "it leaves the gradient that it was given as it was")
    _check_latents("gradient", out, gradient)
    promise(not any(torch.equal(*rows) for rows in zip(out, gradient, strict=True)), "it changes the gradient of every image")
    same("its gradient asked again", regularizer(gradient, predicted(network, regularizer)), out, EXACT)
    for name, values in regularizer.diagnostics(p).items():
        one_each = values.shape == (2,) and bool(values.isfinite().all())
        promise(one_each, f"its diagnostics have one finite value per image: {name} has {tuple(values.shape)}")
    _check_alone("gradient", out, lambda row: regularizer(gradient[row : row + 1], predicted(network, regularizer, [row])))


def _check_normalizer(normalizer: Normalizer, network: Backbone) -> None:
    gradient = _noise((3, 4, 8, 8), 1)
    before = gradient.clone()
    out = normalizer(gradient)
    promise(torch.equal(gradient, before), "it leaves the gradient that it was given as it was")
    _check_latents("gradient", out, gradient)
    _check_alone("gradient", out, lambda row: normalizer(gradient[row : row + 1]))


def _check_gamma(gamma: Gamma, network: Backbone) -> None:
    values = gamma(torch.linspace(0, 1, 5))
    promise(values.shape == (5,), f"it has one value per image, not the shape {tuple(values.shape)}")
    above = bool(values.isfinite().all() and values[0] >= 0 and (values[1:] > 0).all())
    promise(above, f"its values are above 0, the first may be 0: {values.tolist()}")


def _check_filter(component: Filter, network: Backbone) -> None:
    size = per_image(torch.tensor([1e-6, 1e-3, 1.0, 1e3]))
    gradient, attempt = size * _noise((4, 4, 8, 8), 1), torch.tensor([0, 1, 2, 3])
    past = torch.tensor([[0.5, 2.0]]).repeat(4, 1)
    verdict = component.accept_after(gradient, attempt, past)[0]
    promise(verdict.shape == (4,) and verdict.dtype == torch.bool, "it has one truth value per image")
    promise(bool(verdict.any()) and not verdict.all(), "it accepts some of four gradients of SD 1e-6, 1e-3, 1 and 1000, not all")
    alone = [component.accept_after(gradient[row : row + 1], attempt[row : row + 1], past[:1])[0] for row in range(4)]
    promise(torch.equal(torch.cat(alone), verdict), "its verdict on an image does not depend on those beside it")


def _check_timesteps(component: Timesteps, network: Backbone) -> None:
    component.check(20, LAST)
    run = [DrawKey(1, "a", step, 0) for step in range(20)]
    at = [component.at(key, 20, LAST) for key in run]
    promise(all(type(t) in (int, float) and 0 <= t <= LAST for t in at), f"its timesteps are numbers within 0..{LAST}: {at}")
    again = [component.at(key, 20, LAST) for key in reversed(run)][::-1]
    promise(again == at, "its timesteps are a function of the draw")
    following = [*at[1:], None] if component.descends else [None] * 20
    promise(
        [component.after(key, 20, LAST) for key in run] == following, "`after` is the timestep of the next step, if it descends"
    )
    promise(not component.descends or at == sorted(at, reverse=True), "its timesteps go down, as `descends` says")


def _check_solver(solver: Solver, network: Backbone) -> None:
    z = _noise((2, 4, 8, 8), 3).double()
    at, to = levels(network, [600, 200], z)
    estimate = Estimate(0.5 * z, z, at.alpha, at.sigma, "epsilon")
    out = solver.step(estimate, to)
    promise(out.shape == z.shape and not torch.equal(out, z), "a step gives other latents of the same shape")
    alone = levels(network, [200], z[:1])[0]
    same("its step of one image alone", solver.step(estimate[:1], alone), out[:1], EXACT)
    _check_added(solver, estimate, to)


def _check_added(solver: Solver, estimate: Estimate, to: Level) -> None:
    """Noise is added where it should be, in the strength that the solver tells."""
    z = estimate.z_t
    where = torch.zeros_like(z[:, :1])
    where[:, :, 4:] = 1
    plain = solver.step(estimate, to)
    loud, quiet = (solver.step(estimate, to, StepNoise(noise, where)) for noise in (torch.ones_like(z), torch.zeros_like(z)))
    expected = per_image(solver.deviation(estimate, to)) * where.expand_as(z)
    same("the noise that it adds, by its deviation", loud - quiet, expected, CLOSE)
    same("its step where no noise is added", quiet[:, :, :4], plain[:, :, :4], CLOSE)


def _check_inversion(inversion: Inversion, network: Backbone) -> None:
    whole = an_edit(network)
    noise = _noise((4, *whole.source.shape), 1)

    def found(rows: Sequence[int]) -> list[Tensor]:
        edit = whole.narrow(torch.tensor(rows))
        at = levels(network, timesteps(3), edit.source)
        result = inversion.start(WalkBack(network, edit.source, edit.text, at, DDIM(), noise[:, list(rows)].__getitem__))
        return [result.noisy, *(result.latents or ()), *(result.noise or ())]

    for ours, alone in zip(found([0, 1]), found([1]), strict=True):
        _check_latents("latents", ours, whole.source)
        same("what it finds for one image alone", alone, ours[1:], {"rtol": 1e-3, "atol": 1e-4})


def _check_region(source: RegionSource, network: Backbone) -> None:
    whole, hook = an_edit(network), source.hook(TARGET, NULL)
    source.check(network.layout)

    def found(rows: Sequence[int]) -> list[Region]:
        where = torch.tensor(rows)
        edit, draw = whole.narrow(where), _draw(network, whole.source, None).narrow(where)
        progress = Progress(where, torch.full_like(where, STEPS // 2), STEPS)
        p = predict(network, edit.source, edit, draw, (TARGET, NULL), (hook,), progress)
        generators = [torch.Generator().manual_seed(row) for row in rows]
        return source.regions(p.recorded[hook], [[3]] * len(rows), generators)

    both, again, alone, grid = found([0, 1]), found([0, 1]), found([1])[0], grid_of(size_of(whole.source))
    promise(len(both) == 2, f"it has one region per image, not {len(both)} for two")
    for region, other in zip(both, again, strict=True):
        promise(region.mask.shape == grid, f"its mask has the shape {grid}, not {tuple(region.mask.shape)}")
        promise(region.mask.dtype == torch.bool, f"its mask holds truth values, not {region.mask.dtype}")
        promise(torch.equal(region.mask, other.mask), "it finds the same region when asked again")
    agree = (alone.mask == both[1].mask).double().mean().item()
    promise(agree > 1 - FEW, f"it finds the region of one image alone in company, but for {100 * (1 - agree):.0f} % of the cells")


QUESTIONS: dict[type, Callable[..., None]] = {
    Loss: _check_loss,
    Regularizer: _check_regularizer,
    Filter: _check_filter,
    Normalizer: _check_normalizer,
    Gamma: _check_gamma,
    Timesteps: _check_timesteps,
    Solver: _check_solver,
    Inversion: _check_inversion,
    RegionSource: _check_region,
}


# --- what is asked with -------------------------------------------------------------------------------------------------


def an_edit(network: Backbone) -> Edit:
    """Two images of random latents, the mask following one word."""
    side = min(network.native_side // network.factor, SIDE)
    z = _noise((2, network.channels, side, side), 5)
    text = {name: network.embed([prompt] * 2) for name, prompt in PROMPTS.items()}
    focus = torch.zeros(2, network.text.length)
    focus[:, 3] = 1
    return Edit(z, text, focus)


def predicted(network: Backbone, component: Any, rows: Sequence[int] = (0, 1)) -> Prediction:
    """What a loss or regularizer reads of those images, in the middle of a run: averaged masks are all ones at its first step.

    A mask that is not averaged may be the user's, and has one to read.
    """
    where, whole = torch.tensor(rows), an_edit(network)
    if isinstance(component, MaskRegularizer) and not isinstance(component, AveragedMask):
        whole = replace(whole, mask=torch.rand(whole.source[:, :1].shape, generator=torch.Generator().manual_seed(6)))
    edit, draw = whole.narrow(where), _draw(network, whole.source, getattr(component, "gap", None)).narrow(where)
    z = (edit.source + 0.1).requires_grad_(getattr(component, "graph", False))
    progress = Progress(where, torch.full_like(where, STEPS // 2), STEPS)
    branches = component.branches or (TARGET,)  # a network call has at least one row
    with torch.set_grad_enabled(z.requires_grad):
        if isinstance(component, Loss):
            return predict_for(component, network, z, edit, draw, branches, component.hooks, progress, State(2))
        p = predict(network, z, edit, draw, branches, component.hooks, progress)
    return replace(p, state=State(2))


def _draw(network: Backbone, like: Latents, gap: int | None) -> Draw:
    """`gap`: timesteps down to the next level; None: clean data."""
    t, noise = torch.tensor([300, 700]), _noise(like.shape, 0)
    alpha, sigma = (scale.float() for scale in network.scales(t, size_of(like)))
    following = (torch.ones_like(alpha), torch.zeros_like(sigma))
    if gap is not None:
        below, noisier = network.scales(t - gap, size_of(like))
        following = below.float(), noisier.float()
    keys = tuple(DrawKey(0, str(image), STEPS // 2, 0) for image in range(2))
    return Draw(t, noise, alpha, sigma, *following, keys, RandomSampler())


def _noise(shape: Sequence[int], seed: int) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def _check_latents(what: str, value: Tensor, like: Tensor) -> None:
    promise(value.shape == like.shape, f"its {what} has the shape of the latents, {tuple(like.shape)}, not {tuple(value.shape)}")
    promise(value.dtype == like.dtype, f"its {what} is {like.dtype}, not {value.dtype}")
    promise(bool(value.isfinite().all()), f"its {what} is finite")


def _check_alone(what: str, value: Tensor, alone: Callable[[int], Tensor]) -> None:
    """A gradient through the network is a sum of its largest terms, of which rounding is a part."""
    close = CLOSE | {"atol": CLOSE["atol"] * max(1.0, float(value.abs().max()))}
    for row in range(len(value)):
        same(f"its {what} for one image alone", alone(row), value[row : row + 1], close)


def same(what: str, actual: Tensor, expected: Tensor, tolerance: dict[str, Any]) -> None:
    torch.testing.assert_close(actual, expected, **tolerance, msg=lambda text: f"broken promise: {what} is the same. {text}")


def promise(kept: bool, text: str) -> None:
    if not kept:
        raise AssertionError(f"broken promise: {text}")
