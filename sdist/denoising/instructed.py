"""The walk of a network that reads an image and an instruction. Brooks et al. 2022, arXiv 2211.09800, section 3.2.

Three rows per image: the instruction and the image, the image alone, neither. Where a row does not see the image it gets zeros.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch

from ..diffusion import Estimate, Latents, per_image, size_of
from ..prediction import Branch, Hook, Network, Outputs, Text, call
from .base import Level, Solver, StepNoise

INSTRUCTED = Branch("seeing", "instruction")
SEEING = Branch("seeing", "null")
NEITHER = Branch("blind", "null")
ROWS = (INSTRUCTED, SEEING, NEITHER)

LEAST = 2**-12  # alpha, where a schedule ends in noise alone (diffusers' Euler samplers): sigma / alpha stays a number


class Scales(NamedTuple):
    """How strongly the instruction (s_T) and the image (s_I) guide."""

    text: float
    image: float


class Step(NamedTuple):
    """The latents after a step, what the network said in it, and what it took the image to be: at the end the latents."""

    z: Latents
    outputs: Outputs
    clean: Latents


def guided(outputs: Outputs, scales: Scales) -> Estimate:
    """neither + s_T (instructed - seeing) + s_I (seeing - neither), eq. 3."""
    text, image, neither = (outputs[row] for row in ROWS)
    by_text, by_image = text.output - image.output, image.output - neither.output
    return replace(neither, output=neither.output + scales.text * by_text + scales.image * by_image)


def linspace_levels(network: Network, steps: int, like: Latents) -> list[Level]:
    """From the noisiest timestep to 0 in equal distances, `steps` levels, then clean data.

    Between two whole timesteps sigma / alpha is linear (diffusers' Euler samplers, timestep_spacing linspace).
    """
    times = torch.linspace(network.last_timestep, 0, steps, dtype=torch.float64)
    rows = [torch.full((len(like),), float(t), device=like.device, dtype=like.dtype) for t in times]
    return [
        *(_level(network, t, size_of(like)) for t in rows),
        Level(0 * rows[0], torch.ones_like(rows[0]), torch.zeros_like(rows[0])),
    ]


def _level(network: Network, t: torch.Tensor, size: tuple[int, int]) -> Level:
    low = t.floor()
    high = (low + 1).clamp(max=network.last_timestep)
    below, above = (sigma / alpha.clamp(min=LEAST) for alpha, sigma in (network.scales(x.long(), size) for x in (low, high)))
    ratio = torch.lerp(below.to(t), above.to(t), t - low)
    alpha = (1 + ratio**2).rsqrt()
    return Level(t, alpha, ratio * alpha)


def walk(
    network: Network,
    image: Latents,
    text: Mapping[str, Text],
    levels: Sequence[Level],
    solver: Solver,
    scales: Scales,
    noise: Callable[[Latents], Latents],
    hooks: Callable[[int], Iterable[Hook]] = lambda k: (),
) -> Iterator[Step]:
    """Each step from noise at the first level to the last one; `hooks` says what is read or steered in step k = 0, 1, ...

    `image` are latents as the network reads them, `text` holds the prompts "instruction" and "null". `noise` draws
    what is added, in the shape of latents: for the start, then in each step of a solver that is stochastic.
    """
    z, blank, before = per_image(levels[0].sigma) * noise(image), torch.zeros_like(image), None
    for k, (at, to) in enumerate(pairwise(levels)):
        noisy = {"seeing": torch.cat([z, image], 1), "blind": torch.cat([z, blank], 1)}
        outputs = call(network, noisy, at.t, text, ROWS, hooks(k))
        estimate = replace(guided(outputs, scales), alpha=at.alpha, sigma=at.sigma)
        added = StepNoise.everywhere(noise(image)) if solver.stochastic else None
        z, before = solver.step(estimate, to, added, before), estimate
        yield Step(z, outputs, estimate.clean if k < len(levels) - 2 else z)
