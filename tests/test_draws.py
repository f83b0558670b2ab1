import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdist.draws import RandomSampler, Ticket
from sdist.errors import UserError

SHAPE = (4, 8, 8)


def test_draws_are_a_function_of_their_ticket() -> None:
    sampler, ticket = RandomSampler(), Ticket(1, "a", 2, 3)
    torch.manual_seed(0)
    first = sampler.noise(ticket, SHAPE), sampler.timestep(ticket), sampler.permutation(ticket, "x", 9)
    torch.manual_seed(1)
    again = sampler.noise(ticket, SHAPE), sampler.timestep(ticket), sampler.permutation(ticket, "x", 9)
    assert torch.equal(first[0], again[0])
    assert first[1] == again[1]
    assert torch.equal(first[2], again[2])


@pytest.mark.parametrize("other", [Ticket(2, "a", 2, 3), Ticket(1, "b", 2, 3), Ticket(1, "a", 3, 3), Ticket(1, "a", 2, 4)])
def test_every_part_of_a_ticket_changes_the_noise(other: Ticket) -> None:
    sampler = RandomSampler()
    assert not torch.equal(sampler.noise(Ticket(1, "a", 2, 3), SHAPE), sampler.noise(other, SHAPE))


def test_streams_of_a_ticket_differ() -> None:
    sampler, ticket = RandomSampler(), Ticket(1, "a", 2, 3)
    assert not torch.equal(sampler.permutation(ticket, "x", 50), sampler.permutation(ticket, "y", 50))
    assert sorted(sampler.permutation(ticket, "x", 50).tolist()) == list(range(50))


@given(st.integers(0, 999), st.integers(0, 999), st.integers(0, 10_000))
def test_timesteps_stay_in_their_range(a: int, b: int, step: int) -> None:
    low, high = sorted((a, b))
    assert low <= RandomSampler(low, high).timestep(Ticket(0, "", step, 0)) <= high


def test_both_ends_are_drawn_and_the_noise_is_normal() -> None:
    sampler = RandomSampler(10, 13)
    assert {sampler.timestep(Ticket(0, "", k, 0)) for k in range(200)} == {10, 11, 12, 13}
    noise = torch.stack([sampler.noise(Ticket(0, "", k, 0), SHAPE) for k in range(100)])
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


def test_bad_ranges_are_refused() -> None:
    with pytest.raises(UserError, match="t_min=5, t_max=4"):
        RandomSampler(5, 4)
