"""Posterior Distillation Sampling against the definition of its noises, and against the values of Stable Diffusion's schedule."""

from dataclasses import replace

import pytest
import torch

from sdist.distillation.method import Method
from sdist.draws import DrawKey
from sdist.errors import UserError
from sdist.losses.dds import DDS
from sdist.losses.pds import PDS
from sdist.prediction import SOURCE_SOURCE, TARGET, Draw, Prediction
from sdist.timesteps import Uniform

from ..conftest import Gaussian
from .test_losses import prediction


def stable_diffusion() -> torch.Tensor:
    """alpha_bar by timestep, 1 before the first."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])


def with_levels(p: Prediction, t: list[int], gap: int) -> Prediction:
    """The same with the levels of Stable Diffusion at those timesteps."""
    bars = stable_diffusion()
    here, below = bars[torch.tensor(t) + 1], bars[torch.tensor(t) + 1 - gap]
    scales = {"alpha": here.sqrt(), "sigma": (1 - here).sqrt(), "next_alpha": below.sqrt(), "next_sigma": (1 - below).sqrt()}
    return replace(p, draw=replace(p.draw, **scales))


def test_the_released_schedule() -> None:
    """To the digits that were read off the release."""
    p = with_levels(prediction(b=5, t=[101, 201, 401, 601, 801]), [101, 201, 401, 601, 801], gap=2)
    psi, chi = (c.flatten() for c in PDS(gap=2).coefficients(p.draw))
    torch.testing.assert_close(psi, torch.tensor([0.314, 0.140, 0.049, 0.021, 0.0096], dtype=torch.float64), rtol=5e-3, atol=5e-4)
    torch.testing.assert_close(chi, torch.tensor([0.115, 0.092, 0.081, 0.085, 0.096], dtype=torch.float64), rtol=5e-3, atol=5e-4)


def test_from_one_timestep_to_the_next_only_dds_is_left() -> None:
    p = with_levels(prediction(b=2, t=[101, 801]), [101, 801], gap=1)
    loss = PDS(1.0, gap=1)
    psi, chi = loss.coefficients(p.draw)
    assert psi.abs().max() < 1e-9
    torch.testing.assert_close(loss.gradient(p), chi * DDS(1.0).gradient(p))


def test_it_is_the_difference_of_the_noises_that_lead_one_level_down() -> None:
    """(z_s - mean) / SD of the posterior of z_s given z_t, for the edit and for the source, with one noise each at t and at s."""
    p = with_levels(prediction(t=401), [401], gap=2)
    here, below = p.draw.alpha.item() ** 2, p.draw.next_alpha.item() ** 2
    alpha = (here / below) ** 0.5
    beta, noise = 1 - alpha, torch.randn_like(p.latents)

    def posterior_noise(z: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        z_t, z_s = here**0.5 * z + (1 - here) ** 0.5 * p.draw.noise, below**0.5 * z + (1 - below) ** 0.5 * noise
        clean = (z_t - (1 - here) ** 0.5 * eps) / here**0.5
        mean = below**0.5 * beta / (1 - here) * clean + alpha**0.5 * (1 - below) / (1 - here) * z_t
        return (z_s - mean) / ((1 - below) / (1 - here) * beta) ** 0.5

    expected = posterior_noise(p.latents, p.eps[TARGET]) - posterior_noise(p.edit.source, p.eps[SOURCE_SOURCE])
    torch.testing.assert_close(PDS(1.0).gradient(p), expected, rtol=0, atol=1e-9)


def test_its_draws_have_the_level_below() -> None:
    network = Gaussian()
    draw: Draw = Method(PDS(gap=30), timesteps=Uniform(5, 300)).draw(
        network, [DrawKey(0, "a", s, 0) for s in range(20)], torch.zeros(20, 4, 8, 8)
    )
    expected = network.scales((draw.t - 30).clamp(min=0), (8, 8))
    torch.testing.assert_close(draw.next_alpha, expected[0])
    assert (draw.next_alpha > draw.alpha).all()


def test_a_gap_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="loss pds: gap must be at least 1, got 0"):
        PDS(gap=0)
