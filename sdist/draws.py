"""Draws: a pure function of (seed, image key, step, attempt), made on the CPU in float32, so the device cannot change them."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class DrawKey:
    """Names one draw of one image."""

    seed: int
    image: str  # identifies the image; equal images with equal seeds get equal draws, alone or in any batch
    step: int
    attempt: int
    sample: int = 0  # which of the noises that one draw averages

    def generator(self, stream: str) -> torch.Generator:
        """A CPU generator of its own for each named stream of this draw."""
        name = f"{self.seed}|{self.image}|{self.step}|{self.attempt}|{stream}" + (f"|{self.sample}" if self.sample else "")
        digest = blake2b(name.encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@runtime_checkable
class Sampler(Protocol):
    """Where noise and sampled patches come from; a recorded trace can be played back by another one."""

    def noise(self, key: DrawKey, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise of this shape, float32 on the CPU."""

    def permutation(self, key: DrawKey, stream: str, size: int) -> Tensor:
        """A random order of range(size), int64 on the CPU."""


@dataclass(frozen=True)
class RandomSampler:
    """Noise and orders from the generators of the draw."""

    def noise(self, key: DrawKey, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=key.generator("noise"))

    def permutation(self, key: DrawKey, stream: str, size: int) -> Tensor:
        return torch.randperm(size, generator=key.generator(stream))
