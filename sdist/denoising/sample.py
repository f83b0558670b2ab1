"""The walk from noise to image, of several branches side by side: one network call per step."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from ..diffusion import Latents
from ..prediction import Branch, Hook, Network, Text, call
from .base import Level, Solver


class Plan(NamedTuple):
    """What one step asks of the network: the branches that walk on, each with latents of its own, and hooks."""

    branches: Sequence[Branch]
    hooks: Iterable[Hook] = ()


def sample(
    network: Network,
    noisy: Mapping[str, Latents],
    text: Mapping[str, Text],
    levels: Sequence[Level],
    solver: Solver,
    plan: Callable[[int], Plan],
) -> Iterator[dict[str, Latents]]:
    """The latents of the planned branches, by name, after each step from the first level to the last.

    `plan` says what step k = 0, 1, .. asks for. A branch that is no longer planned has ended: its latents are dropped.
    """
    for k, (at, to) in enumerate(pairwise(levels)):
        branches, hooks = plan(k)
        outputs = call(network, noisy, at.t, text, branches, hooks)
        noisy = {branch.latent: solver.step(outputs[branch], to) for branch in branches}
        yield noisy
