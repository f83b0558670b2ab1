"""The rule of a model's scale, where data is Gaussian around a known picture, so that gradients are known in closed form."""

from dataclasses import replace

import pytest
import torch

from sdist.diffusion import Estimate, Latents, std
from sdist.distillation.calibration import REFUSED, TRAVEL, Survey, calibration, common_of, path_of, survey
from sdist.distillation.distiller import ScoreDistiller
from sdist.distillation.method import Method
from sdist.draws import DrawKey
from sdist.errors import NotFiniteError, UserError
from sdist.gammas import ReverseSigmoid
from sdist.losses.sbp import SBP
from sdist.models.memory import AllocationError
from sdist.normalizers import UnitStd
from sdist.optimizer import OptimizerSettings
from sdist.prediction import Edit, Text

from ..conftest import MEANS, Gaussian, gaussian_edit, run_to_end

UNBIASED = 3e-3  # 1 - sqrt(255 / 256), and some: the SD that a gradient is divided by is the unbiased one
LUSD = Method(SBP(), normalizer=UnitStd(), gamma=ReverseSigmoid(), steps=20)


def pattern(side: int) -> Latents:
    """Stripes of 1 and -1, in units of their SD."""
    stripes = torch.ones(1, 4, side, side, dtype=torch.float64)
    stripes[..., ::2] = -1
    return stripes / std(stripes)


class Striped(Gaussian):
    """Data for a prompt is Gaussian around its mean times stripes: SBP's gradient is -k(t) stripes, whatever the noise."""

    def estimate(self, z_t: torch.Tensor, t: torch.Tensor, text: Text, guidance: None = None) -> Estimate:
        mu = text.tokens[:, :1, :1, None] * pattern(z_t.shape[-1])
        alpha, sigma = (x[:, None, None, None] for x in self.scales(t, (1, 1)))
        eps = sigma * (z_t - alpha * mu) / (alpha**2 * self.s**2 + sigma**2)
        return Estimate(eps, z_t, *self.scales(t, (1, 1)), "epsilon")

    def k(self, t: torch.Tensor) -> torch.Tensor:
        """The size of that gradient: sigma alpha (mu_target - mu_source) / (alpha^2 s^2 + sigma^2)."""
        alpha, sigma = self.scales(t, (1, 1))
        return sigma * alpha * (MEANS["target"] - MEANS["source"]) / (alpha**2 * self.s**2 + sigma**2)


def edit_of(side: int = 8) -> Edit:
    z = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(side), dtype=torch.float64)
    return replace(gaussian_edit(1), source=1.7 * z)


def surveyed(side: int = 8, draws: int = 10, parallel: int = 3) -> Survey:
    return survey(Striped(), LUSD, edit_of(side), 0, "a", draws, parallel)


def test_the_scale_in_closed_form() -> None:
    edit, network = edit_of(), Striped()
    keys = [DrawKey(0, "a", step, 0) for step in range(0, 20, 2)]
    k = network.k(LUSD.draw(network, keys, edit.source.expand(10, -1, -1, -1)).t)
    found = calibration([surveyed()], path_of(LUSD.gamma, LUSD.steps))
    assert found.drift == pytest.approx(1, rel=UNBIASED)
    assert found.threshold == pytest.approx(float(k.quantile(REFUSED)))
    assert found.step == pytest.approx(
        TRAVEL * float(std(edit.source)) / (20 * 0.08), rel=UNBIASED
    )  # gamma is symmetric around 0.08
    assert found.refused(found.threshold) == (0.2,)  # two of ten: the quantile lies between the second and the third
    assert found.travel(found.step) == pytest.approx(TRAVEL)


def test_a_run_of_that_step_goes_as_far_as_the_rule_says() -> None:
    edit = edit_of()
    step = calibration([surveyed()], path_of(LUSD.gamma, LUSD.steps)).step
    method = replace(LUSD, optimizer=OptimizerSettings(lr=step))
    distiller = run_to_end(ScoreDistiller(Striped(), edit, method, [(0, "a")]))
    moved = distiller.latents.detach() - edit.source
    assert float(std(moved) / std(edit.source)) == pytest.approx(TRAVEL, rel=UNBIASED)
    assert float(torch.cosine_similarity(moved.flatten(), pattern(8).flatten(), dim=0)) == pytest.approx(1)  # to the target


def test_how_many_draws_are_tried_at_once_changes_nothing() -> None:
    one, many = surveyed(parallel=1), surveyed(parallel=10)
    torch.testing.assert_close(one.sds, many.sds)
    assert one.common == pytest.approx(many.common)


def test_draws_that_do_not_fit_in_memory_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    def estimate(self: Striped, z_t: torch.Tensor, t: torch.Tensor, text: Text, guidance: None = None) -> Estimate:
        calls.append(len(z_t) // 2)  # rows of source and target
        if calls[-1] > fitting:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, z_t, t, text)

    expected, plain, calls, fitting = surveyed(parallel=2), Striped.estimate, list[int](), 2
    monkeypatch.setattr(Striped, "estimate", estimate)
    torch.testing.assert_close(surveyed(parallel=8).sds, expected.sds)
    assert calls == [8, 4, 2, 2, 2, 2, 2]
    fitting = 0
    with pytest.raises(AllocationError, match="1 draws at once does not fit in memory"):
        surveyed()


def test_a_step_and_a_threshold_hold_at_every_size() -> None:
    small, large = (calibration([surveyed(side)], 24.0) for side in (8, 16))
    assert large.threshold == pytest.approx(small.threshold, rel=UNBIASED)
    assert large.step / large.latents == pytest.approx(small.step / small.latents, rel=UNBIASED)


@pytest.mark.parametrize(("shared", "own"), [(1.0, 0.0), (1.0, 1.0), (1.0, 3.0), (0.0, 1.0)])
def test_what_draws_have_in_common_is_the_share_of_their_energy(shared: float, own: float) -> None:
    """Rows of a mean pattern and patterns of their own, all orthogonal and without a mean."""
    fourier = torch.fft.rfft(torch.eye(64, dtype=torch.float64)).real[:, 1:7].T  # cosines
    waves = (fourier / fourier.norm(dim=1, keepdim=True)).reshape(6, 4, 4, 4)
    gradients = torch.tensor([3.0, 1.0, 0.2, 8.0, 1.0])[:, None, None, None] * (shared * waves[:1] + own * waves[1:])
    expected = shared**2 / (shared**2 + own**2) * 63 / 64  # the SD is the unbiased one
    assert common_of(gradients) == pytest.approx(expected, abs=1e-12)


def test_images_are_pooled() -> None:
    def image(latents: float, common: float, *sds: float) -> Survey:
        return Survey(latents, torch.tensor(sds), common)

    found = calibration([image(3.0, 0.2, 1.0, 3.0), image(4.0, 0.3, 2.0, 5.0)], path=10.0)
    assert found.latents == pytest.approx(12.5**0.5)  # root of the mean square
    assert found.drift == pytest.approx(0.25**0.5)
    assert found.threshold == pytest.approx(1 + 3 * REFUSED)  # the SDs are 1, 2, 3, 5: REFUSED lies between the first two
    assert found.step == pytest.approx(TRAVEL * 12.5**0.5 / 5)
    assert found.refused(2.5) == (0.5, 0.5)
    assert found.refused(1.5) == (0.5, 0.0)


@pytest.mark.parametrize("draws", [0, 1, 21])
def test_too_few_or_too_many_draws_are_refused(draws: int) -> None:
    with pytest.raises(UserError, match=f"at least 2 and at most 20, the steps of the method, got {draws}"):
        surveyed(draws=draws)


def test_draws_without_a_direction_in_common_are_refused() -> None:
    with pytest.raises(UserError, match="no direction in common"):
        calibration([Survey(1.0, torch.ones(2), -0.01)], 24.0)


def test_a_network_that_gives_no_numbers_is_named() -> None:
    class Broken(Striped):
        def estimate(self, z_t: torch.Tensor, t: torch.Tensor, text: Text, guidance: None = None) -> Estimate:
            return replace(super().estimate(z_t, t, text), output=torch.full_like(z_t, torch.nan))

    with pytest.raises(NotFiniteError, match="not finite"):
        survey(Broken(), LUSD, edit_of(), 0, "a", 2, 2)
