"""Losses that ask the network before their step: IDS, ISM and ChordEdit in closed form, by a plain loop, and as identities."""

from dataclasses import replace

import pytest
import torch

from sdist.diffusion import Latents, per_image
from sdist.distillation.method import Method
from sdist.errors import UserError
from sdist.losses.base import Loss, predict_for
from sdist.losses.chord import Chord
from sdist.losses.combination import Combination
from sdist.losses.dds import DDS
from sdist.losses.ids import IDS
from sdist.losses.ism import ISM
from sdist.losses.sbp import SBP
from sdist.optimizer import OptimizerSettings
from sdist.prediction import SOURCE_SOURCE, Prediction, predict
from sdist.timesteps import Annealed

from ..conftest import MEANS, Gaussian, gaussian_edit, make_draw, progress
from .test_velocity_delta import GaussianFlow

NETWORKS = pytest.mark.parametrize("network", [Gaussian(), GaussianFlow()], ids=["epsilon", "flow"])
EXACT = {"rtol": 0, "atol": 1e-10}


def predicted(loss: Loss, network, t: list[int], step: int = 0) -> Prediction:
    """Of images that have moved a little from their source."""
    edit, b = gaussian_edit(len(t)), len(t)
    draw, where = make_draw(network, b, t), progress(b, step)
    return predict_for(loss, network, edit.source + 0.3, edit, draw, loss.branches, loss.hooks, where)


def clean(z_t: Latents, alpha: torch.Tensor, sigma: torch.Tensor, mean: float, s: float = 0.5) -> Latents:
    """What the analytic predictor sees in z_t."""
    return mean + alpha * s**2 / (alpha**2 * s**2 + sigma**2) * (z_t - alpha * mean)


def noise_in(z_t: Latents, alpha: torch.Tensor, sigma: torch.Tensor, mean: float, s: float = 0.5) -> Latents:
    """The noise that goes with it, also where sigma is 0."""
    return sigma * (z_t - alpha * mean) / (alpha**2 * s**2 + sigma**2)


def residual(p: Prediction, network, guidance: float) -> torch.Tensor:
    """||z_src - clean_cfg(z_src_t, y_src)|| of each image."""
    branch = SOURCE_SOURCE.guided(guidance)
    seen = predict(network, p.latents, p.edit, p.draw, [branch]).clean[branch]
    return (p.edit.source - seen).flatten(1).norm(dim=1)


# --- IDS ---------------------------------------------------------------------------------------------------------------


@NETWORKS
@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_ids_brings_the_source_nearer_to_what_its_prompt_sees(network, guidance: float) -> None:
    """The predictor is linear in z_t, of slope k at any guidance: each iteration takes rate sqrt(elements) k^2 off the norm."""
    t, loss = [300, 700], IDS(guidance, iterations=3, rate=0.01)
    p, before = predicted(loss, network, t), predicted(replace(loss, iterations=0), network, t)
    alpha, sigma = before.draw.alpha, before.draw.sigma
    k = alpha * 0.25 / (alpha**2 * 0.25 + sigma**2)
    fallen = residual(before, network, guidance) - residual(p, network, guidance)
    torch.testing.assert_close(fallen, 3 * 0.01 * (4 * 8 * 8) ** 0.5 * k**2, **EXACT)


def test_ids_without_iterations_is_dds_and_with_them_dds_of_its_noise() -> None:
    p = predicted(IDS(iterations=0), Gaussian(), [300, 700])
    torch.testing.assert_close(IDS(iterations=0).gradient(p), DDS().gradient(p), **EXACT)
    p = predicted(IDS(), Gaussian(), [300, 700])
    again = predict(Gaussian(), p.latents, p.edit, p.draw, DDS().branches)
    torch.testing.assert_close(IDS().gradient(p), DDS().gradient(again), **EXACT)
    assert not p.draw.noise.requires_grad


# --- ISM ---------------------------------------------------------------------------------------------------------------


@NETWORKS
def test_ism_agrees_with_a_loop_over_noisy_latents(network) -> None:
    """Up to s = 420 by 0, 200, 400, and to t = 500; in company of an image that has gone another number of strides."""
    loss = ISM(3.0, interval=80, stride=200)
    p = predicted(loss, network, [130, 500])
    z, noise = p.latents[1:], make_draw(network, 2, 500).noise[1:]

    def at(t: int) -> tuple[torch.Tensor, torch.Tensor]:
        alpha, sigma = network.scales(torch.tensor([t]), (1, 1))
        return per_image(alpha.double()), per_image(sigma.double())

    z_t = at(0)[0] * z + at(0)[1] * noise
    for here, to in ((0, 200), (200, 400), (400, 420), (420, 500)):
        alpha, sigma = at(here)
        seen, eps = clean(z_t, alpha, sigma, MEANS["null"]), noise_in(z_t, alpha, sigma, MEANS["null"])
        z_t = at(to)[0] * seen + at(to)[1] * eps
    alpha, sigma = at(500)
    torch.testing.assert_close(alpha * z + sigma * p.draw.noise[1:], z_t, **EXACT)
    null, target = (clean(z_t, alpha, sigma, MEANS[name]) for name in ("null", "target"))
    guided = (z_t - alpha * (null + 3.0 * (target - null))) / sigma
    torch.testing.assert_close(loss.gradient(p)[1:], sigma / alpha * (guided - eps), **EXACT)


@NETWORKS
def test_ism_without_an_interval_is_csd_at_the_inverted_latents(network) -> None:
    p = predicted(ISM(3.0, interval=0), network, [300, 500])
    row = Combination(edit_target=3.0, edit_null=-3.0)
    csd = row.gradient(predict(network, p.latents, p.edit, p.draw, row.branches))
    torch.testing.assert_close(ISM(3.0, 0).gradient(p), per_image(p.draw.sigma / p.draw.alpha) * csd, **EXACT)


# --- ChordEdit ---------------------------------------------------------------------------------------------------------


@NETWORKS
def test_chord_without_a_window_is_sbp_in_clean_images(network) -> None:
    p = predicted(Chord(window=0), network, [300, 899])
    sbp = SBP().gradient(predict(network, p.latents, p.edit, p.draw, SBP().branches))
    torch.testing.assert_close(Chord(window=0).gradient(p), per_image(p.draw.sigma / p.draw.alpha) * sbp, **EXACT)


def test_chordedit_is_one_step_and_a_clean_up() -> None:
    """The released constants, written out: the weights of D(899) and D(749) are those of 0.15 and 0.9, within a thousandth."""
    network, edit, images = Gaussian(), gaussian_edit(1), torch.zeros(1, dtype=torch.long)
    method = Method(Chord(), steps=2, timesteps=Annealed(300, 899, 1.0), optimizer=OptimizerSettings(lr=1.0))
    z, states, noises = edit.source.clone(), method.states(1), []
    for step in range(2):
        draw = method.draw(network, [replace(make_draw(network, 1, 1).keys[0], step=step)], z)
        noises.append(draw.noise)
        z = z - method.direction(network, z, edit, draw, images, states).direction
    assert torch.equal(*noises)

    def seen(x: Latents, t: int, prompt: str) -> Latents:
        alpha, sigma = (per_image(scale) for scale in network.scales(torch.tensor([t]), (1, 1)))
        return clean(alpha * x + sigma * noises[0], alpha, sigma, MEANS[prompt])

    d = {t: seen(edit.source, t, "target") - seen(edit.source, t, "source") for t in (899, 749)}
    edited = edit.source + (0.15 * d[899] + 0.9 * d[749]) / 1.05
    torch.testing.assert_close(z, seen(edited, 300, "target"), rtol=1e-3, atol=1e-3)


def test_images_of_a_batch_may_be_at_their_edit_or_at_their_clean_up() -> None:
    network, loss, edit = Gaussian(), Chord(), gaussian_edit(2)
    where = progress(2, 0, 2)._replace(step=torch.tensor([0, 1]))
    both = predict_for(loss, network, edit.source, edit, make_draw(network, 2, [899, 300]), loss.branches, (), where)
    gradient = loss.gradient(both)
    torch.testing.assert_close(gradient[1], (both.latents - both.clean[loss.branches[0]])[1], **EXACT)
    one = torch.tensor([0])
    torch.testing.assert_close(loss.gradient(both.narrow(one)), gradient[:1], **EXACT)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IDS(iterations=-1), "iterations and rate must be at least 0, got -1"),
        (lambda: ISM(stride=0), "stride at least 1, got 80 and 0"),
        (lambda: Chord(window=-1), "window and cleanup must be at least 0, got -1"),
        (lambda: Method(Chord(cleanup=2), steps=2), "cleanup is 2, which leaves none of the run's 2 steps to edit"),
    ],
)
def test_bad_values_are_refused(make, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
