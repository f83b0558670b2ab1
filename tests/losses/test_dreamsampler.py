"""DreamSampler: each step is a distillation on DDIM's way down, by identities with other losses and by a plain walk."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from sdist.diffusion import Latents, per_image
from sdist.distillation.distiller import ScoreDistiller
from sdist.distillation.method import Method
from sdist.draws import DrawKey
from sdist.errors import UserError
from sdist.losses.base import predict_for
from sdist.losses.dreamsampler import DreamSampler
from sdist.losses.sds import SDS
from sdist.optimizer import OptimizerSettings
from sdist.prediction import NULL, TARGET, Edit, Prediction, State, predict
from sdist.timesteps import Descending, Timesteps

from ..conftest import Gaussian, gaussian_edit, make_draw, progress, run_to_end
from .test_velocity_delta import GaussianFlow

NETWORKS = pytest.mark.parametrize("network", [Gaussian(), GaussianFlow()], ids=["epsilon", "flow"])
EXACT = {"rtol": 0, "atol": 1e-9}


def on_its_way(network, loss: DreamSampler, steps: tuple[int, ...] = (3, 3)) -> Prediction:
    """Two images in the middle of their walk, whose noise is any."""
    edit, b, state = gaussian_edit(2), 2, State(2)
    state.tensor("noise", edit.source).copy_(make_draw(network, b, 0, seed=7).noise)
    where = progress(b)._replace(step=torch.tensor(steps))
    return predict_for(loss, network, edit.source, edit, make_draw(network, b, [300, 700]), loss.branches, (), where, state)


def edited(network, guidance: float, steps: int, edit: Edit, timesteps: Timesteps = Descending()) -> Latents:  # noqa: B008
    method = Method(DreamSampler(guidance), optimizer=OptimizerSettings(lr=1.0), steps=steps, timesteps=timesteps)
    return run_to_end(ScoreDistiller(network, edit, method, [(0, "a"), (0, "b")])).latents.detach()


@NETWORKS
def test_a_step_is_one_of_sds_at_the_null_prompts_image_with_its_noise(network) -> None:
    """Both are of one z_t, so that SDS's guidance is all that is left of it: alpha_bar sigma / alpha of its gradient."""
    loss = DreamSampler(0.2)
    p = on_its_way(network, loss)
    image, draw, sds = p.clean[NULL], replace(p.draw, noise=p.eps[NULL]), SDS(0.2)
    moved = sds.gradient(predict(network, image, p.edit, draw, sds.branches))
    alpha, sigma = draw.alpha, draw.sigma
    expected = image - per_image(alpha**2 / (alpha**2 + sigma**2) * sigma / alpha) * moved
    torch.testing.assert_close(p.latents - loss.gradient(p), expected, **EXACT)


@NETWORKS
def test_a_step_ends_at_the_least_of_its_two_terms(network) -> None:
    loss = DreamSampler(0.5)
    p = on_its_way(network, loss)
    weight = 0.5 * per_image(p.draw.alpha**2 / (p.draw.alpha**2 + p.draw.sigma**2))
    end = (p.latents - loss.gradient(p)).requires_grad_()
    cost = (1 - weight) * (end - p.clean[NULL]) ** 2 + weight * (end - p.clean[TARGET]) ** 2
    (slope,) = torch.autograd.grad(cost.sum(), end)
    torch.testing.assert_close(slope, torch.zeros_like(slope), **EXACT)


@NETWORKS
@pytest.mark.parametrize("timesteps", [Descending(), Descending(skip=2, end=40.25)], ids=["whole", "fractions"])
def test_a_run_agrees_with_a_walk_of_noisy_latents(network, timesteps: Timesteps) -> None:
    """Up to the run's first level with the null prompt, and down with its noise around null + w (target - null)."""
    steps, edit = 4, gaussian_edit(2)
    down = [timesteps.at(DrawKey(0, "a", step, 0), steps, network.last_timestep) for step in range(steps)]
    up = [*(round(down[0] * k / steps) for k in range(steps)), down[0]]

    def scales(t: float) -> tuple[Latents, Latents]:
        alpha, sigma = (per_image(scale.double()) for scale in network.scales(torch.tensor([t]), (1, 1)))
        return alpha, sigma

    def seen(z_t: Latents, t: float, prompt: str) -> tuple[Latents, Latents]:
        estimate = network.estimate(z_t, torch.tensor([t] * 2), edit.text[prompt])
        return estimate.clean, estimate.eps

    z_t = scales(0)[0] * edit.source
    for t, higher in pairwise(up):
        clean, eps = seen(z_t, t, "null")
        z_t = scales(higher)[0] * clean + scales(higher)[1] * eps
    for t, lower in pairwise([*down, 0]):
        (null, eps), (target, _), (alpha, sigma) = seen(z_t, t, "null"), seen(z_t, t, "target"), scales(t)
        clean = null + 0.7 * alpha**2 / (alpha**2 + sigma**2) * (target - null)
        z_t = scales(lower)[0] * clean + scales(lower)[1] * eps
    torch.testing.assert_close(edited(network, 0.7, steps, edit, timesteps), clean, **EXACT)


@NETWORKS
def test_without_guidance_the_image_comes_back(network) -> None:
    """By an error of DDIM, which four times as many steps make about a third."""
    edit = gaussian_edit(2)
    off = [float((edited(network, 0.0, steps, edit) - edit.source).abs().max()) for steps in (50, 200)]
    assert off[1] < 0.4 * off[0]
    assert off[1] < 0.15 * float(edit.source.std())


def test_images_of_a_batch_may_be_at_their_first_step_or_on_their_way() -> None:
    network, loss = Gaussian(), DreamSampler()
    both, late, early = (on_its_way(network, loss, steps) for steps in ((0, 3), (3, 3), (0, 0)))
    torch.testing.assert_close(loss.gradient(both)[1:], loss.gradient(late)[1:], **EXACT)
    torch.testing.assert_close(loss.gradient(both)[:1], loss.gradient(early)[:1], **EXACT)


def test_what_does_not_walk_down_is_refused() -> None:
    with pytest.raises(UserError, match="needs timesteps that descend"):
        Method(DreamSampler())
    with pytest.raises(UserError, match="guidance_scale must be at least 0, got -1"):
        DreamSampler(-1)
