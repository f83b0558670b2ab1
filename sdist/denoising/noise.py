"""Draws of a walk: like all others a function of (seed, image, step, attempt), so that company changes nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from ..diffusion import Latents
from ..draws import DrawKey, RandomSampler, Sampler

LEVEL, STEP = 0, 1  # which of its two draws a step has: for the inversion's level, or for the noise that a solver adds


@dataclass(frozen=True)
class Noises:
    """Noise of unit variance for some images, each known by its seed and its pixels."""

    images: Sequence[tuple[int, str]]
    like: Latents
    sampler: Sampler = field(default_factory=RandomSampler)

    def of_level(self, k: int) -> Latents:
        """For the k-th level of a walk, which an inversion may ask for."""
        return self._drawn(k, LEVEL)

    def of_step(self, k: int) -> Latents:
        """For the k-th step of a walk, the same in all of its branches."""
        return self._drawn(k, STEP)

    def _drawn(self, k: int, attempt: int) -> Latents:
        keys = [DrawKey(seed, image, k, attempt) for seed, image in self.images]
        return torch.stack([self.sampler.noise(key, tuple(self.like.shape[1:])) for key in keys]).to(self.like)


def noise_of(generators: Sequence[torch.Generator]) -> Callable[[Latents], Latents]:
    """Draws standard normal noise in the shape of latents, on the CPU in float32, each image's by its generator."""
    return lambda like: torch.stack([torch.randn(like.shape[1:], generator=one) for one in generators]).to(like)
