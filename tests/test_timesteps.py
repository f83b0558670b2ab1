from math import exp

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdist.draws import DrawKey
from sdist.errors import UserError
from sdist.models.flow import Flow
from sdist.timesteps import Annealed, Descending, Prioritized, Timesteps, Uniform, check_levels


def run(timesteps: Timesteps, steps: int, last: int = 999) -> list[float]:
    """The timesteps of the first attempts of a run."""
    return [timesteps.at(DrawKey(0, "", step, 0), steps, last) for step in range(steps)]


@given(st.integers(0, 999), st.integers(0, 999), st.integers(0, 10_000))
def test_uniform_timesteps_stay_in_their_range(a: int, b: int, step: int) -> None:
    low, high = sorted((a, b))
    assert low <= Uniform(low, high).at(DrawKey(0, "", step, 0), 1, 999) <= high


def test_both_ends_are_drawn() -> None:
    assert set(run(Uniform(10, 13), 200)) == {10, 11, 12, 13}


def test_timesteps_of_earlier_versions_stay() -> None:
    """Run cards hold seeds: these values are those of the first release."""
    assert [Uniform().at(DrawKey(3, "picture", step, 0), 4, 999) for step in range(4)] == [139, 745, 124, 407]
    assert Uniform(10, 20).at(DrawKey(3, "picture", 2, 1), 4, 999) == 11


@given(st.integers(0, 998), st.floats(0.1, 10), st.integers(0, 10_000))
def test_a_shift_multiplies_the_odds_of_what_was_drawn(low: int, shift: float, step: int) -> None:
    """t / (last - t), which is what SD3's shift is in other words; and it is stable at both ends."""
    key = DrawKey(0, "", step, 0)
    drawn, shifted = Uniform(low, 998).at(key, 1, 999), Uniform(low, 998, shift).at(key, 1, 999)
    assert shifted / (999 - shifted) == pytest.approx(shift * drawn / (999 - drawn))
    assert [Uniform(t, t, shift).at(key, 1, 999) for t in (0, 999)] == pytest.approx([0, 999])


def test_a_shift_is_that_of_a_flow_and_adds_to_it() -> None:
    """Stable Diffusion 3's levels are those of a model without a shift at timesteps of shift 3."""

    class Shifted(Flow):
        def __init__(self, k: float) -> None:
            self.k = k

        def shift(self, size: tuple[int, int]) -> float:
            return self.k

    def t(k: float) -> torch.Tensor:
        return torch.tensor([Uniform(0, 1000, k).at(DrawKey(0, "", step, 0), 9, 1000) for step in range(9)]).double()

    torch.testing.assert_close(Shifted(1.0).level(t(3.0), (8, 8)), Shifted(3.0).level(t(1.0), (8, 8)))
    torch.testing.assert_close(Shifted(3.0).level(t(2.0), (8, 8)), Shifted(6.0).level(t(1.0), (8, 8)))


@given(st.integers(1, 400), st.floats(0.1, 3))
def test_annealed_timesteps_go_from_one_end_to_the_other(steps: int, power: float) -> None:
    at = run(Annealed(20, 980, power), steps)
    assert at[0] == 980
    assert at[-1] == (20 if steps > 1 else 980)
    assert at == sorted(at, reverse=True)


def test_annealing_is_that_of_hifa_or_a_straight_line() -> None:
    """t_max - (t_max - t_min) sqrt(progress), here at 0, 1/16, 1/4, 9/16 and 1; and evenly spaced."""
    hifa = run(Annealed(0, 800), 17)
    assert [hifa[k] for k in (0, 1, 4, 9, 16)] == [800, 600, 400, 200, 0]
    assert run(Annealed(0, 800, power=1.0), 5) == [800, 600, 400, 200, 0]


def test_dreamtime_goes_down_slowly_where_its_weight_is_large() -> None:
    """Step k is at the timestep whose part of the weight above is nearest to k/N, found here one by one."""

    def weight(t: int) -> float:
        off = (t - 800) / 300 if t > 800 else (t - 500) / 100 if t < 500 else 0.0
        return exp(-(off**2) / 2)

    def at(part: float) -> int:
        return min(range(980, 19, -1), key=lambda t: abs(sum(map(weight, range(t, 981))) / total - part))

    total = sum(map(weight, range(20, 981)))
    assert run(Prioritized(20, 980), 16) == [at(k / 16) for k in range(16)]
    whole = run(Prioritized(20, 980), 200)
    assert whole == sorted(whole, reverse=True)
    assert whole[0] == 980
    assert sum(500 <= t <= 800 for t in whole) / 200 == pytest.approx(301 / total, abs=0.01)
    with_flat_weight = Prioritized(0, 999, low=0, high=999)
    assert run(with_flat_weight, 10) == [999, 900, 800, 700, 600, 500, 400, 300, 200, 100]


def test_prioritized_weights_may_all_be_tiny() -> None:
    """All of W lies at the end of the range that is next to low..high."""
    assert run(Prioritized(20, 100, low_sd=1), 3) == [100] * 3
    assert run(Prioritized(20, 100, low=0, high=1, high_sd=0.5), 3) == [100, 100, 20]


def test_descending_goes_down_the_whole_schedule() -> None:
    assert run(Descending(), 10, last=1000) == [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100]
    assert run(Descending(), 1) == [999]


@given(st.integers(1, 60), st.integers(0, 60))
def test_skipping_leaves_out_the_noisiest_levels(steps: int, skip: int) -> None:
    assert run(Descending(skip), steps) == run(Descending(), steps + skip)[skip:]


@pytest.mark.parametrize("attempt", [0, 5])
def test_a_step_leads_to_the_first_attempt_of_the_next(attempt: int) -> None:
    timesteps = Descending()
    assert timesteps.after(DrawKey(0, "", 2, attempt), 10, 1000) == 700
    assert timesteps.after(DrawKey(0, "", 9, attempt), 10, 1000) is None
    assert Uniform().after(DrawKey(0, "", 2, attempt), 10, 1000) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(5, 4), "t_min=5, t_max=4"),
        (lambda: Uniform(shift=0.0), "shift must be above 0, got 0"),
        (lambda: Annealed(-1, 4), "t_min=-1"),
        (lambda: Annealed(power=0), "power must be above 0, got 0"),
        (lambda: Prioritized(low=900), "need low <= high and SDs above 0, got low=900, high=800"),
        (lambda: Descending(-1), "skip must be at least 0, got -1"),
        (lambda: Uniform(0, 1000).check(1, 999), "t_max=1000, but this model's last timestep is 999"),
    ],
)
def test_bad_values_are_refused(make, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@given(st.integers(1, 999), st.integers(0, 999))
def test_levels_of_a_run_that_is_allowed_differ(steps: int, skip: int) -> None:
    if steps + skip <= 999:
        Descending(skip).check(steps, 999)
        levels = run(Descending(skip), steps)
        assert levels == sorted({*levels} - {0}, reverse=True)
    else:
        with pytest.raises(UserError, match=rf"need {steps + skip} levels, this model has 999; "):
            Descending(skip).check(steps, 999)
        Descending(skip, end=1.0).check(steps, 999)


def test_a_run_at_clean_data_alone_has_nothing_to_do() -> None:
    with pytest.raises(UserError, match="keeps 3 steps at timestep 0"):
        check_levels(Uniform(0, 0), 3, 999)

    class Late(Uniform):
        def at(self, key: DrawKey, steps: int, last: int) -> int:
            return int(key.step == 150)

    check_levels(Late(), 200, 999)


def test_an_end_spaces_the_levels_down_to_it() -> None:
    """FlowEdit's levels on Stable Diffusion 3: evenly from 1000 to where its scheduler's table of 1000 levels ends."""
    assert run(Descending(end=100), 4, last=1000) == [1000, 700, 400, 100]
    assert run(Descending(skip=2, end=100), 2, last=1000) == [400, 100]
    assert run(Descending(end=1000 / 28), 28, last=1000) == pytest.approx([1000 * (28 - k) / 28 for k in range(28)])
    with pytest.raises(UserError, match="end must be above 0"):
        Descending(end=0.0)
    with pytest.raises(UserError, match="end is 2000, but this model's last timestep is 999"):
        Descending(end=2000.0).check(1, 999)


def test_stable_diffusion_3s_scheduler_is_an_end() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(50)
    u = torch.tensor(run(Descending(end=2.994012), 50, last=1000)) / 1000
    torch.testing.assert_close(3 * u / (1 + 2 * u), scheduler.sigmas[:-1], rtol=0, atol=1e-6)
