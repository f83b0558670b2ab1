import torch
from hypothesis import given
from hypothesis import strategies as st

from sdist.diffusion import add_noise, alpha_sigma, cfg, eps_from_v, std

from .conftest import Gaussian

BARS = Gaussian().alphas_cumprod
timesteps = st.integers(0, 999)


def latents(seed: int) -> torch.Tensor:
    return torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(timesteps, timesteps)
def test_alpha_and_sigma_are_on_the_unit_circle(a: int, b: int) -> None:
    alpha, sigma = alpha_sigma(BARS, torch.tensor([a, b]))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(2, dtype=torch.float64))


@given(timesteps)
def test_a_velocity_holds_the_noise(t: int) -> None:
    z, eps = latents(0), latents(1)
    alpha, sigma = alpha_sigma(BARS, torch.tensor([t, t]))
    z_t = add_noise(z, eps, alpha, sigma)
    velocity = alpha[:, None, None, None] * eps - sigma[:, None, None, None] * z
    torch.testing.assert_close(eps_from_v(velocity, z_t, alpha, sigma), eps)


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
