"""Filters, normalizers and gammas, each by itself."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdist.distillation.past import PastDraws
from sdist.errors import UserError
from sdist.filters import StdQuantile, StdThreshold
from sdist.gammas import DVRF, Constant, Cosine, Linear, ReverseSigmoid
from sdist.normalizers import UnitStd


def latents(seed: int, b: int = 2) -> torch.Tensor:
    return torch.randn(b, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


# --- filter ------------------------------------------------------------------------------------------------------------


@given(st.floats(0.001, 2), st.integers(0, 300))
def test_a_rejected_gradient_is_accepted_sooner_or_later_and_stays_accepted(size: float, attempt: int) -> None:
    accept, gradient = StdThreshold(threshold=1.0), latents(0, 1) * size
    now, later = (bool(accept.accept(gradient, torch.tensor([a]))) for a in (attempt, attempt + 1))
    assert later or not now
    assert bool(accept.accept(gradient, torch.tensor([2000])))


def test_the_threshold_decays_with_every_attempt_and_images_are_judged_apart() -> None:
    accept = StdThreshold(threshold=0.5, decay=0.9)
    torch.testing.assert_close(accept.threshold_at(torch.tensor([0, 3])), torch.tensor([0.5, 0.5 * 0.9**3]))
    gradient = torch.cat([latents(0, 1) * 0.46, latents(1, 1) * 0.46])
    assert accept.accept(gradient, torch.tensor([0, 3])).tolist() == [False, True]


@pytest.mark.parametrize("fields", [{"threshold": -1}, {"decay": 0}, {"decay": 1.1}, {"max_attempts": 0}])
def test_bad_filters_are_refused(fields: dict) -> None:
    with pytest.raises(UserError):
        StdThreshold(**fields)


def test_a_quantile_is_of_the_images_own_draws_whatever_their_scale() -> None:
    accept, past = StdQuantile(level=0.5, decay=0.5), torch.tensor([[1.0, 2, 3, 4, 5], [10, 20, 30, 40, torch.nan]])
    gradient = torch.cat([UnitStd()(latents(0, 1)) * 2.6, UnitStd()(latents(1, 1)) * 24.9])
    good, threshold = accept.accept_after(gradient, torch.tensor([0, 0]), past)
    torch.testing.assert_close(threshold, torch.tensor([3.0, 25.0]))
    assert good.tolist() == [False, False]
    good, threshold = accept.accept_after(gradient, torch.tensor([1, 2]), past)  # levels 0.25 and 0.125
    torch.testing.assert_close(threshold, torch.tensor([2.0, 13.75]))
    assert good.tolist() == [True, True]


def test_the_first_draw_of_an_image_passes_a_quantile() -> None:
    gradient, attempt = latents(0) * 1e-6, torch.tensor([0, 0])
    assert StdQuantile().accept(gradient, attempt).all()
    assert torch.equal(StdQuantile().threshold_at(attempt), torch.zeros(2))


@pytest.mark.parametrize("fields", [{"level": -0.1}, {"level": 1.0}, {"decay": 0}, {"decay": 1.1}])
def test_bad_quantiles_are_refused(fields: dict) -> None:
    with pytest.raises(UserError, match="std_quantile"):
        StdQuantile(**fields)


def test_draws_come_after_those_of_their_own_image_alone() -> None:
    past = PastDraws(3)
    past.add(torch.tensor([0, 0, 2]), torch.tensor([1.0, 2, 3]))
    past.add(torch.tensor([2]), torch.tensor([4.0]))
    found = past.before(torch.tensor([0, 1, 1, 2]), torch.tensor([5.0, 6, 7, 8]))
    expected = [[1.0, 2], [], [6.0], [3.0, 4]]
    assert [row[~row.isnan()].tolist() for row in found] == expected
    assert PastDraws(1).before(torch.tensor([0]), torch.tensor([1.0])).isnan().all()


# --- normalizer --------------------------------------------------------------------------------------------------------


@given(st.floats(1e-3, 1e3))
def test_unit_std_forgets_the_scale_of_each_image(scale: float) -> None:
    gradient = latents(0)
    normal = UnitStd()(torch.cat([gradient[:1] * scale, gradient[1:]]))
    torch.testing.assert_close(normal, UnitStd()(gradient), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(normal.flatten(1).std(dim=1), torch.ones(2))


def test_a_constant_gradient_stays_finite() -> None:
    assert torch.equal(UnitStd()(torch.zeros(1, 4, 8, 8)), torch.zeros(1, 4, 8, 8))
    assert UnitStd()(torch.ones(1, 4, 8, 8)).isfinite().all()


# --- gammas ------------------------------------------------------------------------------------------------------------


def test_gammas_go_from_high_to_low() -> None:
    progress_ = torch.linspace(0, 1, 300)
    for gamma in (Linear(), Cosine(), ReverseSigmoid()):
        values = gamma(progress_)
        assert (values.diff() <= 1e-9).all()
        assert values[0] <= 0.15
        assert values[-1] >= 0.01 - 1e-6
    assert torch.equal(Constant(2.0)(progress_), torch.full((300,), 2.0))


def test_reverse_sigmoid_has_the_released_values() -> None:
    values = ReverseSigmoid()(torch.linspace(0, 1, 300))
    written_out = (1 - torch.sigmoid(torch.linspace(-5, 5, 300))) * 0.14 + 0.01
    torch.testing.assert_close(values, written_out)
    torch.testing.assert_close(values[[0, -1]], torch.tensor([0.1491, 0.0109]), rtol=0, atol=5e-5)


def test_dvrfs_step_sizes_are_those_of_its_release() -> None:
    """On Stable Diffusion 3's 50 levels: 0, .0063, .0385, .0412, .0376 at steps 1, 21, 41, 45, 50, and .843 in all."""
    u = torch.linspace(1, 2.994012e-3, 50, dtype=torch.float64)
    s = 3 * u / (1 + 2 * u)
    sizes = DVRF(rate=float(s[-2] - s[-1]) / 1.6)(torch.arange(50) / 49)
    torch.testing.assert_close(sizes[[0, 20, 40, 44, 49]], torch.tensor([0, 0.0063, 0.0385, 0.0412, 0.0376]), rtol=0, atol=1e-4)
    assert float(sizes.sum()) == pytest.approx(0.843, abs=5e-4)
