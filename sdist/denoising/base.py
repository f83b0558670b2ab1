"""What a walk between noise and image is made of: its levels, and what solvers and inversions are."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Real
from torch import Tensor

from ..diffusion import Estimate, Latents, PerImage, size_of
from ..errors import UserError
from ..prediction import Network, Text

LAST = 999  # the noisiest timestep of Stable Diffusion's schedule


@dataclass(frozen=True)
class Level:
    """How noisy latents are: z = alpha x + sigma noise at the timestep t of each image."""

    t: Real[Tensor, " b"]
    alpha: PerImage
    sigma: PerImage


def timesteps(steps: int, last: int = LAST) -> list[int]:
    """From noise to image, `steps` apart from the 0 at their end: of a schedule to 999, 50 steps are 981, 961, .., 1, 0.

    The spacing is that of DDIM in Stable Diffusion (diffusers: leading, with an offset of 1). Raises UserError
    for more steps than that leaves levels apart.
    """
    every = last + 1
    if not 1 <= steps <= every // 2:
        raise UserError(f"steps is a number from 1 to {every // 2}, got {steps}")
    return [*(1 + every // steps * k for k in reversed(range(steps))), 0]


def levels(network: Network, times: Sequence[float], like: Latents, clean_end: bool = False) -> list[Level]:
    """The model's levels at those timesteps, for as many images as `like` has.

    With `clean_end` the last one has no noise at all, which is less than that of timestep 0.
    """
    rows = [torch.full((len(like),), t, device=like.device) for t in times]
    found = [Level(t, *(scale.to(like.dtype) for scale in network.scales(t, size_of(like)))) for t in rows]
    if clean_end:
        found[-1] = Level(rows[-1], torch.ones_like(found[-1].alpha), torch.zeros_like(found[-1].sigma))
    return found


@dataclass(frozen=True)
class StepNoise:
    """Noise of unit variance that a step adds in the solver's own strength, where `where` is 1."""

    noise: Latents
    where: Float[Tensor, "b 1 _ _"]  # 0..1, of the latents' size or 1 x 1

    @staticmethod
    def everywhere(noise: Latents) -> "StepNoise":
        return StepNoise(noise, torch.ones_like(noise[:, :1, :1, :1]))


class Solver(ABC):
    """A frozen dataclass whose fields are its configuration; takes noisy latents from one level to another."""

    clean_end: ClassVar[bool] = False  # whether its last level is the image itself rather than timestep 0
    stochastic: ClassVar[bool] = False  # whether every step needs noise, everywhere

    def timesteps(self, steps: int, last: int) -> list[int]:
        """From noise to image in so many steps: one more level than steps; `last` is the model's noisiest timestep."""
        return timesteps(steps, last)

    @abstractmethod
    def step(self, estimate: Estimate, to: Level, added: StepNoise | None = None, before: Estimate | None = None) -> Latents:
        """The latents at another level, from what the network says of those at the estimate's own.

        `added`: noise, for solvers that know a stochastic step. `before`: the estimate of the step before, for solvers that
        remember it; None in the first one.
        """

    def deviation(self, estimate: Estimate, to: Level) -> PerImage:
        """The standard deviation of the noise that such a step adds where `where` is 1; 0: it adds none."""
        return torch.zeros_like(to.sigma)


@dataclass(frozen=True)
class InversionResult:
    """What an inversion found: where branches start, and what keeps the source on its way back to the image.

    `latents` and `noise` have one entry per step.
    """

    noisy: Latents  # at the first level
    clean: Latents | None = None  # every estimate moves by what the source's clean image is off from this
    latents: Sequence[Latents] | None = None  # what the source is set to after each step
    noise: Sequence[Latents] | None = None  # added by each step, in every branch and everywhere


@dataclass(frozen=True)
class WalkBack:
    """Of the encoded images, from noise to where they were: what an inversion prepares.

    `noise(k)` is a draw of unit variance for levels[k], always the same one.
    """

    network: Network
    source: Latents
    text: Mapping[str, Text]
    levels: Sequence[Level]  # from noise to image
    solver: Solver
    noise: Callable[[int], Latents]


class Inversion(ABC):
    """A frozen dataclass whose fields are its configuration; finds the noise that an image is walked back from."""

    clean_end: ClassVar[bool] = False  # whether the way back ends at the image itself rather than timestep 0

    @abstractmethod
    def start(self, walk: WalkBack) -> InversionResult:
        """Where it begins: noisy latents of the images at the first level."""
