"""What every registered component must do, asked of every registered component."""

import json
import re
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest
import torch

from sdist.config.build import load_settings, resolve
from sdist.config.methods import shipped
from sdist.denoising.base import Added, Inverted, levels, timesteps
from sdist.denoising.solvers.ddim import DDIM
from sdist.diffusion import Estimate, per_image
from sdist.draws import DrawKey
from sdist.models.base import Backbone
from sdist.prediction import TARGET, Prediction, State, predict
from sdist.registry import FILTERS, GAMMAS, INVERSIONS, LOSSES, NORMALIZERS, REGIONS, REGULARIZERS, SOLVERS, TIMESTEPS, Registry
from sdist.regularizers.user_mask import UserMask
from sdist.timesteps import Timesteps

from .conftest import Gaussian, gaussian_edit, make_draw, progress, tiny_edit

REGISTRIES = (LOSSES, REGULARIZERS, FILTERS, NORMALIZERS, GAMMAS, TIMESTEPS, SOLVERS, INVERSIONS, REGIONS)
FILES = (LOSSES, REGULARIZERS, SOLVERS, INVERSIONS, REGIONS)  # of one component each, which bears its name
EVERY = [(registry, name) for registry in REGISTRIES for name in registry.names()]
FIELDS = {"combination": {"edit_target": 1.0, "noise": -1.0}, "attention_mask": {"cross_level": 1, "self_level": 0}}


def build(registry: Registry, name: str):
    return registry.get(name)(**FIELDS.get(name, {}))


def predicted(network: Backbone, component, b: int = 2, rows: slice = slice(None)) -> Prediction:
    """In the middle of a run: at its first step every averaged mask is all ones. A user mask has one to read."""
    shown = torch.rand(b, 1, 8, 8, generator=torch.Generator().manual_seed(6))
    mask = shown if isinstance(component, UserMask) else None
    edit = replace(tiny_edit(network, b), mask=mask).narrow(torch.arange(b)[rows])
    draw = make_draw(network, b, [300, 700][:b], dtype=torch.float32).narrow(torch.arange(b)[rows])
    branches = component.branches or (TARGET,)  # a network call has at least one row
    z = (edit.source + 0.1).requires_grad_(getattr(component, "graph", False))
    where = progress(b, step=5)
    where = where._replace(images=where.images[rows], step=where.step[rows])
    with torch.set_grad_enabled(z.requires_grad):
        p = predict(network, z, edit, draw, branches, component.hooks, where)
    return replace(p, state=State(b))


@pytest.mark.parametrize(("registry", "name"), EVERY, ids=[f"{r.slot}-{n}" for r, n in EVERY])
def test_a_component_is_a_frozen_documented_dataclass(registry: Registry, name: str) -> None:
    component = build(registry, name)
    assert type(component).__doc__
    assert Path(__file__).parent.parent.joinpath(*type(component).__module__.split(".")).with_suffix(".py").is_file()
    if registry in FILES:
        assert type(component).__module__.rsplit(".", 1)[-1] == name
    for field in fields(component):
        with pytest.raises(FrozenInstanceError):
            setattr(component, field.name, None)


@pytest.mark.parametrize("name", LOSSES.names())
@pytest.mark.parametrize("kind", ["tiny", "tiny_v"])
def test_losses(name: str, kind: str, request: pytest.FixtureRequest) -> None:
    network: Backbone = request.getfixturevalue(kind)
    loss = build(LOSSES, name)
    p = predicted(network, loss)
    before = {b: e.detach().clone() for b, e in p.eps.items()}
    with torch.set_grad_enabled(loss.graph):
        gradient = loss.gradient(p)
    assert gradient.shape == p.latents.shape
    assert gradient.dtype == torch.float32
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    assert all(torch.equal(before[b], e) for b, e in p.eps.items())
    assert all(x.grad is None and not x.requires_grad for x in network.denoiser.parameters())
    with torch.set_grad_enabled(loss.graph):
        torch.testing.assert_close(loss.gradient(predicted(network, loss)), gradient, rtol=0, atol=0)
        for row in range(2):
            alone = loss.gradient(predicted(network, loss, rows=slice(row, row + 1)))
            torch.testing.assert_close(alone, gradient[row : row + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REGULARIZERS.names())
def test_regularizers(tiny: Backbone, name: str) -> None:
    regularizer = build(REGULARIZERS, name)
    p = predicted(tiny, regularizer)
    gradient = torch.randn(p.latents.shape, generator=torch.Generator().manual_seed(1))
    before = gradient.clone()
    out = regularizer(gradient, p)
    assert torch.equal(gradient, before)
    assert out.shape == gradient.shape
    assert out.isfinite().all()
    assert not any(torch.equal(*rows) for rows in zip(out, gradient, strict=True))
    assert torch.equal(regularizer(gradient, predicted(tiny, regularizer)), out)
    assert all(v.shape == (2,) and v.isfinite().all() for v in regularizer.diagnostics(p).values())
    for row in range(2):
        alone = regularizer(gradient[row : row + 1], predicted(tiny, regularizer, rows=slice(row, row + 1)))
        torch.testing.assert_close(alone, out[row : row + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NORMALIZERS.names())
def test_normalizers(name: str) -> None:
    gradient = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    before = gradient.clone()
    out = build(NORMALIZERS, name)(gradient)
    assert torch.equal(gradient, before)
    torch.testing.assert_close(build(NORMALIZERS, name)(gradient[1:2]), out[1:2])


@pytest.mark.parametrize("name", GAMMAS.names())
def test_gammas(name: str) -> None:
    values = build(GAMMAS, name)(torch.linspace(0, 1, 5))
    assert values.shape == (5,)
    assert (values >= 0).all()
    assert values[1:].min() > 0


@pytest.mark.parametrize("name", TIMESTEPS.names())
def test_timesteps(name: str) -> None:
    """Whole, on the schedule, a function of the draw alone; a run that descends says where each step leads."""
    timesteps: Timesteps = build(TIMESTEPS, name)
    timesteps.check(999)
    run = [DrawKey(1, "a", step, 0) for step in range(20)]
    at = [timesteps.at(key, 20, 999) for key in run]
    assert all(type(t) is int and 0 <= t <= 999 for t in at)
    assert [timesteps.at(key, 20, 999) for key in reversed(run)] == at[::-1]
    assert [timesteps.after(key, 20, 999) for key in run] == ([*at[1:], None] if timesteps.descends else [None] * 20)
    assert not timesteps.descends or at == sorted(at, reverse=True)


@pytest.mark.parametrize("name", FILTERS.names())
def test_filters(name: str) -> None:
    """A verdict on each image, some of them yes and some no, whatever stands beside it."""
    size = per_image(torch.tensor([1e-6, 1e-3, 1.0, 1e3]))
    gradient = size * torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    attempt, component = torch.tensor([0, 1, 2, 3]), build(FILTERS, name)
    verdict = component.accept(gradient, attempt)
    assert verdict.shape == (4,)
    assert verdict.dtype == torch.bool
    assert verdict.any()
    assert not verdict.all()
    alone = [component.accept(gradient[row : row + 1], attempt[row : row + 1]) for row in range(4)]
    assert torch.equal(torch.cat(alone), verdict)


@pytest.mark.parametrize("name", SOLVERS.names())
def test_solvers(gaussian: Gaussian, name: str) -> None:
    """A step takes latents of one image to another level, whatever stands beside it."""
    z = gaussian_edit(2).source
    at, to = levels(gaussian, [600, 200], z)
    estimate = Estimate(0.5 * z, z, at.alpha, at.sigma, "epsilon")
    out = build(SOLVERS, name).step(estimate, to)
    assert out.shape == z.shape
    assert not torch.equal(out, z)
    alone = levels(gaussian, [200], z[:1])[0]
    torch.testing.assert_close(build(SOLVERS, name).step(estimate[:1], alone), out[:1], rtol=0, atol=0)


@pytest.mark.parametrize("name", SOLVERS.names())
def test_noise_is_added_where_it_should_be(gaussian: Gaussian, name: str) -> None:
    """Elsewhere a step is the one without noise; both in the strength that the solver tells."""
    z, solver = gaussian_edit(2).source, build(SOLVERS, name)
    at, to = levels(gaussian, [600, 200], z)
    estimate, where = Estimate(0.5 * z, z, at.alpha, at.sigma, "epsilon"), torch.zeros_like(z[:, :1])
    where[:, :, 4:] = 1
    plain = solver.step(estimate, to)
    loud, quiet = (solver.step(estimate, to, Added(noise, where)) for noise in (torch.ones_like(z), torch.zeros_like(z)))
    torch.testing.assert_close(loud - quiet, per_image(solver.deviation(estimate, to)) * where.expand_as(z))
    torch.testing.assert_close(quiet[:, :, :4], plain[:, :, :4])


@pytest.mark.parametrize("name", INVERSIONS.names())
def test_inversions(tiny: Backbone, name: str) -> None:
    edit = tiny_edit(tiny, 2)
    at = levels(tiny, timesteps(3), edit.source)
    noise = torch.randn(4, *edit.source.shape, generator=torch.Generator().manual_seed(1))
    found = build(INVERSIONS, name).start(tiny, edit.source, edit.text, at, DDIM(), noise.__getitem__)
    one = edit.narrow(torch.tensor([1]))
    apart = levels(tiny, timesteps(3), one.source)
    alone = build(INVERSIONS, name).start(tiny, one.source, one.text, apart, DDIM(), noise[:, 1:].__getitem__)
    for ours, theirs in zip(found_latents(found), found_latents(alone), strict=True):
        assert ours.shape == edit.source.shape
        assert ours.isfinite().all()
        torch.testing.assert_close(theirs, ours[1:], rtol=1e-3, atol=1e-4)


def found_latents(found: Inverted) -> list[torch.Tensor]:
    return [found.noisy, *(found.latents or ()), *(found.noise or ())]


PRESETS = sorted(shipped("method"))
WANTED = {
    "sds", "dds", "dds_object", "cds", "cds_object", "sbp", "lusd", "lusd_released", "dds_lusd", "lusd_no_spatial",
    "lusd_no_normalization", "lusd_no_annealing", "lusd_no_filtering", "lusd_difference",
}  # fmt: skip


def test_all_presets_are_there() -> None:
    assert set(PRESETS) >= WANTED


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip_and_say_how_to_run_them(name: str) -> None:
    settings = load_settings(name)
    assert resolve(json.loads(json.dumps(settings.plain())), "again") == settings
    header = shipped("method")[name].read_text().splitlines()[:2]
    assert all(line.startswith("#") for line in header)
    assert f"--method {name}" in header[1]


def flat(data: object, path: str = "") -> dict[str, object]:
    if not isinstance(data, dict):
        return {path: data}
    return {key: value for name, own in data.items() for key, value in flat(own, f"{path}.{name}" if path else name).items()}


def test_paper_and_release_differ_in_the_documented_settings_alone() -> None:
    paper, release = (flat(load_settings(name).plain()) for name in ("lusd", "lusd_released"))
    differ = {key for key in paper.keys() | release.keys() if paper.get(key) != release.get(key)}
    assert differ == {
        "timesteps.t_max",
        "filter.redraw_timestep",
        "regularizers.attention_mask.timing",
        "regularizers.attention_mask.beta",
        "prompts.difference",
        "prompts.pieces",
    }
    text = (Path(__file__).parent.parent / "docs" / "methods.md").read_text()
    table = text[text.index("| setting | `lusd` (paper)") :]
    assert set(re.findall(r"^\| `([\w.]+)` \|", table[: table.index("\n\n")], re.MULTILINE)) == differ
