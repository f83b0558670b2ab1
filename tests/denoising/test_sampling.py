"""Solvers and inversions against closed forms: one point, a Gaussian, a straight flow."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from sdist.denoising.base import Inversion, Level, Solver, WalkBack, levels, timesteps
from sdist.denoising.inversions.ddim import DDIMInversion
from sdist.denoising.inversions.direct import DirectInversion
from sdist.denoising.inversions.edit_friendly import EditFriendlyInversion
from sdist.denoising.inversions.virtual import VirtualInversion
from sdist.denoising.sample import Plan, sample
from sdist.denoising.solvers.ddim import DDIM
from sdist.denoising.solvers.dpmpp_2m import DPMSolverPP2M
from sdist.diffusion import Estimate, add_noise, flow_scales, per_image
from sdist.errors import UserError
from sdist.losses.dds import DDS
from sdist.prediction import SOURCE_SOURCE, TARGET, Branch, predict

from ..conftest import MEANS, Gaussian, gaussian_edit, make_draw

B = 2


def walk(network, z: torch.Tensor, branch: Branch, at: list[Level]) -> torch.Tensor:
    """The last latents of one branch alone."""
    *_, last = sample(network, {branch.latent: z}, gaussian_edit(B).text, at, DDIM(), lambda k: Plan([branch]))
    return last.noisy[branch.latent]


def inverted(network: Gaussian, source: torch.Tensor, at: list[Level]) -> torch.Tensor:
    return DDIMInversion().start(WalkBack(network, source, gaussian_edit(B).text, at, DDIM(), lambda k: source)).noisy


def spread(network: Gaussian, level: Level) -> torch.Tensor:
    """The standard deviation of noisy latents of the Gaussian."""
    return per_image((level.alpha**2 * network.s**2 + level.sigma**2).sqrt())


def transported(network: Gaussian, z: torch.Tensor, mean: float, at: Level, to: Level) -> torch.Tensor:
    """Where the probability flow takes z: each deviation from the mean grows with the spread."""
    return per_image(to.alpha) * mean + (z - per_image(at.alpha) * mean) * spread(network, to) / spread(network, at)


def test_levels_are_those_of_stable_diffusion(gaussian: Gaussian) -> None:
    """As diffusers spaces them: leading, with an offset of 1."""
    assert timesteps(50)[:2] == [981, 961]
    assert timesteps(50)[-2:] == [1, 0]
    assert timesteps(1) == [1, 0]
    assert timesteps(12)[0] == 1 + 11 * 83
    assert timesteps(50, 1999)[:2] == [1961, 1921]
    assert DDIM().timesteps(50, 499) == timesteps(50, 499) == [*range(491, 0, -10), 0]
    at = levels(gaussian, timesteps(5), gaussian_edit(B).source)
    assert [level.t.tolist() for level in at] == [[t] * B for t in (801, 601, 401, 201, 1, 0)]
    assert all(torch.equal(level.alpha, gaussian.scales(level.t, (1, 1))[0]) for level in at)
    for steps in (0, 501):
        with pytest.raises(UserError, match=f"from 1 to 500, got {steps}"):
            timesteps(steps)


def test_a_single_point_is_reached_in_any_number_of_steps() -> None:
    """Where all data is one point, the noise never changes, and the walk is exact."""
    network = Gaussian(s=0.0)
    for steps in (1, 3):
        at = levels(network, timesteps(steps), gaussian_edit(B).source)
        noise = torch.randn(B, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        point = torch.full_like(noise, MEANS["target"])
        z = add_noise(point, noise, at[0].alpha, at[0].sigma)
        wanted = add_noise(point, noise, at[-1].alpha, at[-1].sigma)
        torch.testing.assert_close(walk(network, z, TARGET, at), wanted, rtol=0, atol=1e-12)


def test_inversion_and_sampling_follow_the_flow_of_a_gaussian(gaussian: Gaussian) -> None:
    """Both come as near to the closed form as steps of the first order do: twice the steps, half the error."""
    source, errors = gaussian_edit(B).source, []
    for steps in (125, 250, 500):
        at = levels(gaussian, timesteps(steps), source)
        z = inverted(gaussian, source, at)
        wanted = transported(gaussian, source, MEANS["source"], at[-1], at[0])
        back = walk(gaussian, wanted, SOURCE_SOURCE, at)
        errors.append(
            [float((a - b).abs().max()) for a, b in ((z, wanted), (back, source), (walk(gaussian, z, SOURCE_SOURCE, at), source))]
        )
    for coarse, fine in pairwise(errors):
        assert all(1.7 < a / b < 2.3 for a, b in zip(coarse, fine, strict=True))
    assert max(errors[-1]) < 0.05


def test_another_prompt_moves_the_image_to_its_mean(gaussian: Gaussian) -> None:
    """Inverted with the source and walked back with the target, an image keeps its deviation and changes its mean."""
    source = gaussian_edit(B).source
    at = levels(gaussian, timesteps(500), source)
    edited = walk(gaussian, inverted(gaussian, source, at), TARGET, at)
    noisy = transported(gaussian, source, MEANS["source"], at[-1], at[0])
    torch.testing.assert_close(edited, transported(gaussian, noisy, MEANS["target"], at[0], at[-1]), rtol=0, atol=0.05)


def level_of_flow(s: float) -> Level:
    t = torch.full((B,), 1000 * s, dtype=torch.float64)
    return Level(t, *flow_scales(t))


def test_on_a_flow_it_is_eulers_step() -> None:
    velocity, z = torch.randn(2, B, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for s, to in ((1.0, 0.7), (0.7, 0.2), (0.2, 0.9)):
        at = level_of_flow(s)
        out = DDIM().step(Estimate(velocity, z, at.alpha, at.sigma, "flow"), level_of_flow(to))
        torch.testing.assert_close(out, z + (to - s) * velocity, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_every_model_takes_a_flows_steps(gaussian: Gaussian, kind: str) -> None:
    """z / (alpha + sigma) moves by its velocity, eps - clean, times the change of sigma / (alpha + sigma)."""
    at, to = levels(gaussian, [700, 300], gaussian_edit(B).source)
    output, z = torch.randn(2, B, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    estimate = Estimate(output, z, at.alpha, at.sigma, kind)
    out = DDIM().step(estimate, to)
    whole, after = at.alpha + at.sigma, to.alpha + to.sigma
    moved = z / per_image(whole) + per_image(to.sigma / after - at.sigma / whole) * estimate.velocity
    torch.testing.assert_close(out / per_image(after), moved, rtol=0, atol=1e-12)


def test_branches_walk_side_by_side_and_end_when_they_are_no_longer_planned(gaussian: Gaussian) -> None:
    z = gaussian_edit(B).source
    at = levels(gaussian, timesteps(4), z)
    both = Plan([SOURCE_SOURCE, TARGET.guided(3)])
    walked = list(
        sample(
            gaussian,
            {"source": z, "edit": z},
            gaussian_edit(B).text,
            at,
            DDIM(),
            lambda k: both if k < 2 else Plan([TARGET.guided(3)]),
        )
    )
    assert [sorted(step.noisy) for step in walked] == [["edit", "source"]] * 2 + [["edit"]] * 2
    torch.testing.assert_close(walked[1].noisy["source"], walk(gaussian, z, SOURCE_SOURCE, at[:3]))
    torch.testing.assert_close(walked[-1].noisy["edit"], walk(gaussian, z, TARGET.guided(3), at))


# --- solvers of the second order, inversions that bring the source back -----------------------------------------------


def test_a_solver_of_the_second_order_comes_nearer_much_faster(gaussian: Gaussian) -> None:
    """Twice the steps, a quarter of the error. The last step, to the image itself, is of the first order and is left out."""
    source, errors, solver = gaussian_edit(B).source, [], DPMSolverPP2M()
    for steps in (40, 80, 160):
        at = levels(gaussian, solver.timesteps(steps, 999), source)[: 9 * steps // 10]
        last = levels(gaussian, [at[-1].t[0].item()], source)[0]
        z = transported(gaussian, source, MEANS["source"], last, at[0])
        *_, walked = sample(gaussian, {"source": z}, gaussian_edit(B).text, at, solver, lambda k: Plan([SOURCE_SOURCE]))
        errors.append(float((walked.noisy["source"] - source).abs().max()))
    assert all(coarse / fine > 3 for coarse, fine in pairwise(errors))


def test_timesteps_of_the_second_order_are_equally_spaced() -> None:
    solver = DPMSolverPP2M()
    assert solver.timesteps(12, 999) == [999, 916, 832, 749, 666, 583, 500, 416, 333, 250, 166, 83, 0]
    with pytest.raises(UserError, match="from 1 to 999, got 0"):
        solver.timesteps(0, 999)


@pytest.mark.parametrize("solver", [DDIM(), DPMSolverPP2M()], ids=["ddim", "dpmpp_2m"])
@pytest.mark.parametrize(
    "inversion", [VirtualInversion(), DirectInversion(), EditFriendlyInversion()], ids=lambda i: type(i).__name__
)
def test_the_source_comes_back(gaussian: Gaussian, inversion: Inversion, solver: Solver) -> None:
    """Exactly, but for edit-friendly inversion, which adds nothing in its last step."""
    source, text = gaussian_edit(B).source, gaussian_edit(B).text
    at = levels(gaussian, solver.timesteps(6, 999), source, solver.clean_end or inversion.clean_end)
    noise = torch.randn(7, *source.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = inversion.start(WalkBack(gaussian, source, text, at, solver, noise.__getitem__))
    start, plan = {"source": found.noisy, "edit": found.noisy}, Plan([SOURCE_SOURCE, TARGET.guided(5)])
    walked = list(sample(gaussian, start, text, at, solver, lambda k: plan, found))
    if isinstance(inversion, EditFriendlyInversion):
        kept = add_noise(source, noise[5], at[5].alpha, at[5].sigma)
        torch.testing.assert_close(walked[4].noisy["source"], kept, rtol=0, atol=1e-9)
    else:
        torch.testing.assert_close(walked[-1].noisy["source"], source, rtol=0, atol=1e-9)
    assert (walked[-1].noisy["edit"] - source).abs().max() > 0.5


def test_edit_friendly_inversion_needs_noise(gaussian: Gaussian) -> None:
    source = gaussian_edit(B).source
    at = levels(gaussian, timesteps(3), source)
    with pytest.raises(UserError, match="needs a solver that adds noise"):
        EditFriendlyInversion().start(WalkBack(gaussian, source, gaussian_edit(B).text, at, DDIM(eta=0), lambda k: source))


def test_virtual_inversion_walks_by_the_two_predictions_of_dds(gaussian: Gaussian) -> None:
    """In its first step, where both branches are the same latents, it moves by DDS's gradient (arXiv 2304.07090) alone."""
    edit, scale = gaussian_edit(B), 7.5
    at = levels(gaussian, timesteps(4), edit.source, clean_end=True)
    noise = torch.randn(edit.source.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = VirtualInversion().start(WalkBack(gaussian, edit.source, edit.text, at, DDIM(), lambda k: noise))
    start, plan = {"source": found.noisy, "edit": found.noisy}, Plan([SOURCE_SOURCE, TARGET.guided(scale)])
    first = next(iter(sample(gaussian, start, edit.text, at, DDIM(), lambda k: plan, found)))
    draw = make_draw(gaussian, B, int(at[0].t[0]))
    branches = DDS(guidance_scale=scale).branches
    p = predict(gaussian, edit.source, edit, replace(draw, noise=noise), branches)
    delta = p.eps[TARGET.guided(scale)] - p.eps[SOURCE_SOURCE.guided(1)]
    moved = per_image(at[1].sigma - at[1].alpha * at[0].sigma / at[0].alpha) * delta
    torch.testing.assert_close(first.noisy["edit"] - first.noisy["source"], moved, rtol=0, atol=1e-9)
