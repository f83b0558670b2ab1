"""The walk from noise to image, of several branches side by side: one network call per step."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from ..diffusion import Estimate, Latents
from ..prediction import Branch, Hook, Network, Outputs, Text, call
from .base import InversionResult, Level, Solver, StepNoise

ByName = dict[str, Latents]
SOURCE = "source"  # the branch that an inversion brings back


class Step(NamedTuple):
    """By branch, the latents after a step, and what it took the image to be."""

    noisy: ByName
    clean: ByName


class Plan(NamedTuple):
    """What one step asks of the network: the branches that walk on, each with latents of its own, and hooks.

    `added` says, from what the network gave, which noise is added if the inversion has none of its own; `after` changes the
    latents when the step is made.
    """

    branches: Sequence[Branch]
    hooks: Iterable[Hook] = ()
    added: Callable[[Outputs], StepNoise | None] = lambda outputs: None
    after: Callable[[ByName], ByName] = lambda noisy: noisy


def sample(
    network: Network,
    noisy: Mapping[str, Latents],
    text: Mapping[str, Text],
    levels: Sequence[Level],
    solver: Solver,
    plan: Callable[[int], Plan],
    inverted: InversionResult | None = None,
) -> Iterator[Step]:
    """The planned branches after each step from the first level to the last.

    `plan` says what step k = 0, 1, .. asks for. A branch that is no longer planned has ended: its latents are dropped.
    What was inverted keeps the branch "source" on its way.
    """
    before: Mapping[str, Estimate] = {}
    for k, (at, to) in enumerate(pairwise(levels)):
        branches, hooks, added, after = plan(k)
        outputs = call(network, noisy, at.t, text, branches, hooks)
        estimates = corrected({branch.latent: outputs[branch] for branch in branches}, inverted)
        noise = added(outputs)
        if inverted is not None and inverted.noise is not None:
            noise = StepNoise.everywhere(inverted.noise[k])
        walked = {name: solver.step(estimate, to, noise, before.get(name)) for name, estimate in estimates.items()}
        if inverted is not None and inverted.latents is not None and SOURCE in walked:
            walked[SOURCE] = inverted.latents[k]
        noisy, before = after(walked), estimates
        yield Step(noisy, {name: estimate.clean for name, estimate in estimates.items()})


def corrected(estimates: Mapping[str, Estimate], inverted: InversionResult | None) -> dict[str, Estimate]:
    """Each clean image moved by what the source's is off from the image itself, where that was inverted virtually.

    The source's is then the image, and another's the image plus the difference of the two predictions.
    """
    if inverted is None or inverted.clean is None:
        return dict(estimates)
    off = inverted.clean - estimates[SOURCE].clean
    moved = {name: estimate.with_clean(estimate.clean + off) for name, estimate in estimates.items()}
    return moved | {SOURCE: estimates[SOURCE].with_clean(inverted.clean)}
