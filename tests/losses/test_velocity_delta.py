"""The editors of flows: identities between them and with the other losses, and a flow whose answer is known."""

from dataclasses import replace

import pytest
import torch

from sdist.diffusion import Estimate, flow_level, flow_scales
from sdist.distillation.distiller import ScoreDistiller
from sdist.distillation.method import Method
from sdist.draws import DrawKey
from sdist.errors import UserError
from sdist.losses.base import Loss
from sdist.losses.dds import DDS
from sdist.losses.velocity_delta import VelocityDelta
from sdist.optimizer import OptimizerSettings
from sdist.prediction import Edit, Prediction, Progress, Text, predict
from sdist.timesteps import Descending

from ..conftest import MEANS, Gaussian, gaussian_edit, make_draw, run_to_end


class GaussianFlow:
    """If data for a prompt is N(m, c^2 I), E[v | z_s] = ((s - (1 - s) c^2) z_s - s m) / ((1 - s)^2 c^2 + s^2)."""

    guidance, last_timestep, c = "cfg", 1000, 0.5

    def scales(self, t: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        alpha, sigma = flow_scales(t.double())
        return alpha, sigma

    def estimate(self, z_t: torch.Tensor, t: torch.Tensor, text: Text, guidance: None = None) -> Estimate:
        s, m, c2 = self.scales(t, (1, 1))[1][:, None, None, None], text.tokens[:, :1, :1, None], self.c**2
        v = ((s - (1 - s) * c2) * z_t - s * m) / ((1 - s) ** 2 * c2 + s**2)
        return Estimate(v, z_t, *self.scales(t, (1, 1)), "flow")


def shown(network: Gaussian | GaussianFlow, loss: Loss, t: int = 400, step: int = 3, steps: int = 10) -> Prediction:
    """Two images that are edited already, at one draw."""
    edit = gaussian_edit(2)
    z = edit.source + torch.randn(edit.source.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    where = Progress(torch.arange(2), torch.full((2,), step), steps)
    shift = loss.shift(where)
    return predict(
        network, z, edit, make_draw(network, 2, t), loss.branches, (), where, None if shift is None else shift.double()
    )


PLAIN = VelocityDelta(target_guidance=1, source_guidance=1, step="constant")


@pytest.mark.parametrize("network", [Gaussian(), GaussianFlow()], ids=["epsilon", "flow"])
def test_without_the_shift_it_is_dds(network: Gaussian | GaussianFlow) -> None:
    """DDS's gradient of noise is (1 - s) (dV + R), on a flow; else the same in the model's own scale."""
    loss = replace(PLAIN, eta=0.0)
    p = shown(network, loss)
    expected = DDS(guidance_scale=1).gradient(shown(network, DDS(guidance_scale=1)))
    share = (p.draw.alpha / (p.draw.alpha + p.draw.sigma))[:, None, None, None]  # 1 - s
    if isinstance(network, GaussianFlow):
        torch.testing.assert_close(share * loss.gradient(p), expected, rtol=0, atol=1e-10)
    scale = (p.draw.alpha + p.draw.sigma)[:, None, None, None]
    inside = p.velocity[loss.branches[0]] - p.velocity[loss.branches[1]]
    torch.testing.assert_close(inside * p.draw.alpha[:, None, None, None] / scale + share * (p.latents - p.edit.source), expected)


def test_flowedit_is_dvrf_with_the_whole_shift_and_steps_of_the_levels() -> None:
    network = GaussianFlow()
    flowedit, dvrf = replace(PLAIN, step="levels"), PLAIN
    p = shown(network, flowedit)
    p = replace(p, draw=replace(p.draw, next_alpha=p.draw.alpha + 0.1, next_sigma=p.draw.sigma - 0.1))
    torch.testing.assert_close(flowedit.gradient(p), 0.1 * dvrf.gradient(p), rtol=0, atol=1e-12)


def test_the_pull_of_flowalign_is_the_difference_of_clean_estimates() -> None:
    """pull (s dV - R) = pull (clean of the source - clean of the edit), from which its update is made."""
    network, loss = GaussianFlow(), VelocityDelta(target_guidance=1, source_guidance=1, guide_from="source", pull=0.01)
    p = shown(network, loss)
    without = replace(loss, pull=0.0).gradient(p)
    target, _, source = loss.branches
    pulled = 0.01 * (p.clean[source] - p.clean[target])
    torch.testing.assert_close(loss.gradient(p), without - pulled, rtol=0, atol=1e-12)


def test_guidance_from_the_source_prompt_needs_no_null_prompt() -> None:
    loss = VelocityDelta(target_guidance=5, source_guidance=1, guide_from="source")
    p = shown(GaussianFlow(), loss)
    assert {branch.prompt for branch in loss.branches} == {"target", "source"}
    target, source, anchor = (p.velocity[branch] for branch in loss.branches)
    size = flow_level(p.draw.alpha, p.draw.sigma)[:, None, None, None]
    torch.testing.assert_close(loss.gradient(p), size * (source + 5 * (target - source) - anchor), rtol=0, atol=1e-12)


def test_the_shift_grows_over_the_run_where_it_is_progressive() -> None:
    where = Progress(torch.arange(3), torch.tensor([0, 5, 9]), 10)
    assert VelocityDelta(eta_start=0, eta=2).shift(where).tolist() == pytest.approx([0, 1, 1.8])
    assert VelocityDelta().shift(where).tolist() == [1, 1, 1]


@pytest.mark.parametrize("steps", [1, 4, 13])
def test_flowedit_moves_a_gaussian_exactly_by_the_difference_of_means(steps: int) -> None:
    edit: Edit = gaussian_edit(2)
    loss = VelocityDelta(target_guidance=1, source_guidance=1)
    method = Method(loss, optimizer=OptimizerSettings(lr=1.0), steps=steps, timesteps=Descending())
    distiller = run_to_end(ScoreDistiller(GaussianFlow(), edit, method, [(0, "a"), (1, "b")]))
    moved = distiller.latents.detach() - edit.source
    torch.testing.assert_close(moved, torch.full_like(moved, MEANS["target"] - MEANS["source"]), rtol=0, atol=1e-6)


def test_sampled_steps_are_a_plain_walk_of_the_target() -> None:
    """FlowEdit's n_min: z + s (noise - x) goes down the target's flow by Euler steps, with one noise for all of them."""
    network, edit = GaussianFlow(), gaussian_edit(1)
    loss = VelocityDelta(target_guidance=1, source_guidance=1, sampled=3)
    method = Method(loss, optimizer=OptimizerSettings(lr=1.0), steps=3, timesteps=Descending(skip=2), noises=2)
    distiller = run_to_end(ScoreDistiller(network, edit, method, [(0, "a")]))
    noise = torch.randn(edit.source.shape[1:], generator=DrawKey(0, "a", 0, 0).generator("noise")).double()
    x = edit.source + 0.6 * (noise - edit.source)
    for s, after in ((0.6, 0.4), (0.4, 0.2), (0.2, 0.0)):
        v = network.estimate(x, torch.tensor([1000 * s]), edit.text["target"]).velocity
        x = x + (after - s) * v
    torch.testing.assert_close(distiller.latents.detach(), x, rtol=0, atol=1e-6)


def test_several_noises_are_averaged_and_named_by_the_draw() -> None:
    network, edit, loss = Gaussian(), gaussian_edit(2), DDS(guidance_scale=3)
    method, images = Method(loss, noises=3), torch.arange(2)
    keys = [DrawKey(0, name, 0, 0) for name in "ab"]
    draw = method.draw(network, keys, edit.source)
    assert [(key.image, key.sample) for key in draw.keys] == [(name, i) for name in "ab" for i in range(3)]
    assert all(len(set(times)) == 1 for times in draw.t.unflatten(0, (2, 3)).tolist())
    step = method.direction(network, edit.source, edit, draw, images, method.states(2))
    one = Method(loss)
    first = one.draw(network, keys, edit.source)
    torch.testing.assert_close(draw.noise[::3], first.noise)
    rows = edit.narrow(torch.arange(2).repeat_interleave(3))
    each = loss.gradient(predict(network, rows.source, rows, draw, loss.branches))
    torch.testing.assert_close(step.direction, each.unflatten(0, (2, 3)).mean(1), rtol=0, atol=1e-12)
    assert len(step.verdict.sd) == 2


def test_steps_from_level_to_level_need_timesteps_that_descend() -> None:
    with pytest.raises(UserError, match="needs timesteps that descend"):
        Method(VelocityDelta())
    Method(VelocityDelta(step="constant"))


def test_bad_values_are_named() -> None:
    for name in ("pull", "eta", "eta_start"):
        with pytest.raises(UserError, match=rf"velocity_delta: {name} must be at least 0, got -0\.1"):
            VelocityDelta(**{name: -0.1})
    for options in ({"pull": 0.01}, {"eta": 0.5}, {"eta_start": 0.0}, {"step": "constant"}):
        with pytest.raises(UserError, match="sampled steps need"):
            VelocityDelta(sampled=2, **options)
    with pytest.raises(UserError, match="velocity_delta: sampled is 4, the run has 3 steps"):
        Method(VelocityDelta(sampled=4), steps=3, timesteps=Descending())
    Method(VelocityDelta(sampled=3), steps=3, timesteps=Descending())
