"""Levels of noise, and what networks say of noisy latents: one pair (eps, clean) whatever they predict."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from sdist.diffusion import Estimate, add_noise, cfg, discrete_scales, flow_scales, std

from .conftest import Gaussian

BARS = Gaussian().alphas_cumprod
KINDS = ("epsilon", "v_prediction", "flow")
timesteps = st.integers(0, 999)


def latents(seed: int) -> torch.Tensor:
    return torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scales(kind: str, t: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    times = torch.tensor(t, dtype=torch.float64)
    return flow_scales(times) if kind == "flow" else discrete_scales(BARS, times)


@given(st.floats(0, 999), timesteps)
def test_a_discrete_schedule_is_on_the_unit_circle_also_between_its_timesteps(a: float, b: int) -> None:
    alpha, sigma = discrete_scales(BARS, torch.tensor([a, b], dtype=torch.float64))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(2, dtype=torch.float64))
    low, high = BARS[int(a)].sqrt(), BARS[min(int(a) + 1, 999)].sqrt()
    assert high <= alpha[0] <= low


def test_whole_timesteps_as_floats_have_the_levels_of_the_schedule() -> None:
    t = torch.arange(1000)
    whole, floats = discrete_scales(BARS.float(), t), discrete_scales(BARS.float(), t.float())
    assert torch.equal(torch.stack(whole), torch.stack(floats))
    assert torch.equal(whole[0], BARS.float().sqrt())


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.floats(0, 999), min_size=2, max_size=2))
def test_clean_and_noise_make_up_the_noisy_latents(kind: str, t: list[float]) -> None:
    """alpha clean + sigma eps = z_t for any output, right or wrong."""
    alpha, sigma = scales(kind, t)
    estimate = Estimate(latents(0), latents(1), alpha, sigma, kind)
    torch.testing.assert_close(add_noise(estimate.clean, estimate.eps, alpha, sigma), estimate.z_t)
    torch.testing.assert_close(estimate.velocity, estimate.eps - estimate.clean, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.floats(0, 999), min_size=2, max_size=2))
def test_the_right_output_has_the_noise_and_the_image_that_z_t_was_made_of(kind: str, t: list[float]) -> None:
    x, noise, (alpha, sigma) = latents(0), latents(1), scales(kind, t)
    a, g = alpha[:, None, None, None], sigma[:, None, None, None]
    output = {"epsilon": noise, "v_prediction": a * noise - g * x, "flow": noise - x}[kind]
    estimate = Estimate(output, add_noise(x, noise, alpha, sigma), alpha, sigma, kind)
    torch.testing.assert_close(estimate.eps, noise)
    torch.testing.assert_close(estimate.clean, x)
    torch.testing.assert_close(estimate.velocity, noise - x)


@pytest.mark.parametrize("kind", ["v_prediction", "flow"])
def test_pure_noise_is_told_exactly_in_single_precision(kind: str) -> None:
    """alpha = 0, s = 1: the noise is z_t, the image is what the network says, and a flow's velocity its very output."""
    output, z_t = latents(0).float(), latents(1).float()
    estimate = Estimate(output, z_t, torch.zeros(2), torch.ones(2), kind)
    assert torch.equal(estimate.eps, z_t)
    assert torch.equal(estimate.clean, (z_t if kind == "flow" else 0) - output)
    if kind == "flow":
        assert torch.equal(estimate.velocity, output)


@given(timesteps)
def test_a_step_of_ddim_is_eulers_step_of_the_same_model_seen_as_a_flow(t: int) -> None:
    """x_s = z_t / (alpha + sigma) at s = sigma / (alpha + sigma), moved along the velocity to the next level."""
    (a, g), (a_next, g_next) = scales("epsilon", [t]), scales("epsilon", [max(0, t - 20)])
    estimate = Estimate(latents(0)[:1], latents(1)[:1], a, g, "epsilon")
    s, s_next = g / (a + g), g_next / (a_next + g_next)
    euler = estimate.z_t / (a + g) + (s_next - s) * estimate.velocity
    torch.testing.assert_close(add_noise(estimate.clean, estimate.eps, a_next, g_next), euler * (a_next + g_next))


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_of_outputs_is_guidance_of_eps_and_of_clean(kind: str) -> None:
    alpha, sigma = scales(kind, [300, 700])
    null, given_ = (Estimate(latents(i), latents(9), alpha, sigma, kind) for i in (0, 1))
    guided = given_.guided(null, 7.5)
    for part in ("eps", "clean", "velocity"):
        torch.testing.assert_close(getattr(guided, part), cfg(getattr(null, part), getattr(given_, part), 7.5))


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_guidance_is_affine_and_starts_at_the_unconditional(a: float, b: float) -> None:
    u, c = latents(0), latents(1)
    assert torch.equal(cfg(u, c, 0), u)
    torch.testing.assert_close(cfg(u, c, 1), c)
    torch.testing.assert_close(cfg(u, c, (a + b) / 2), (cfg(u, c, a) + cfg(u, c, b)) / 2)


def test_std_is_unbiased_and_per_image() -> None:
    x = latents(2)
    expected = torch.stack([row.flatten().std(unbiased=True) for row in x])
    torch.testing.assert_close(std(x), expected)


def test_shapes_are_checked_while_the_tests_run() -> None:
    z, scale = latents(0), torch.ones(2)
    with pytest.raises(TypeCheckError, match="noise"):
        add_noise(z, z[:, :, :2], scale, scale)
