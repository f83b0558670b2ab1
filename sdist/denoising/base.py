"""What a walk between noise and image is made of: its levels, and what solvers and inversions are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Real
from torch import Tensor

from ..diffusion import Estimate, Latents, PerImage
from ..errors import UserError
from ..prediction import Network, Text

LAST = 1000  # timesteps of a model's schedule


@dataclass(frozen=True)
class Level:
    """How noisy latents are: z = alpha x + sigma noise at the timestep t of each image."""

    t: Real[Tensor, " b"]
    alpha: PerImage
    sigma: PerImage


def timesteps(steps: int) -> list[int]:
    """From noise to image, `steps` apart from the 0 at their end: 50 steps are 981, 961, .., 1, 0.

    The spacing is that of DDIM in Stable Diffusion (diffusers: leading, with an offset of 1).
    """
    if not 1 <= steps <= LAST // 2:
        raise UserError(f"steps is a number from 1 to {LAST // 2}, got {steps}")
    return [*(1 + LAST // steps * k for k in reversed(range(steps))), 0]


def levels(network: Network, times: Sequence[float], like: Latents) -> list[Level]:
    """The model's levels at those timesteps, for as many images as `like` has."""
    rows = [torch.full((len(like),), t, device=like.device) for t in times]
    return [Level(t, *(scale.to(like.dtype) for scale in network.scales(t))) for t in rows]


class Solver(ABC):
    """A frozen dataclass whose fields are its configuration; takes noisy latents from one level to another."""

    @abstractmethod
    def step(self, estimate: Estimate, to: Level) -> Latents:
        """The latents at another level, from what the network says of those at the estimate's own."""


class Inversion(ABC):
    """A frozen dataclass whose fields are its configuration; finds the noise that an image is walked back from."""

    @abstractmethod
    def start(self, network: Network, source: Latents, text: Mapping[str, Text], levels: Sequence[Level]) -> Latents:
        """Noisy latents of the encoded images at levels[0]; the levels go from noise to image."""
