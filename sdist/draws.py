"""Draws: a pure function of (seed, image key, step, attempt), made on the CPU in float32, so the device cannot change them."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from .errors import UserError


@dataclass(frozen=True)
class Ticket:
    """Names one draw of one image."""

    seed: int
    key: str  # identifies the image; equal images with equal seeds get equal draws, alone or in any batch
    step: int
    attempt: int

    def generator(self, stream: str) -> torch.Generator:
        """A CPU generator of its own for each named stream of this draw."""
        name = f"{self.seed}|{self.key}|{self.step}|{self.attempt}|{stream}"
        digest = blake2b(name.encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@runtime_checkable
class Sampler(Protocol):
    """Where timesteps, noise and sampled patches come from; a recorded trace can be played back by another one."""

    def timestep(self, ticket: Ticket) -> int:
        """The integer timestep of this draw."""

    def noise(self, ticket: Ticket, shape: tuple[int, ...]) -> Tensor:
        """Standard normal noise of this shape, float32 on the CPU."""

    def permutation(self, ticket: Ticket, stream: str, size: int) -> Tensor:
        """A random order of range(size), int64 on the CPU."""


@dataclass(frozen=True)
class RandomSampler:
    """Timesteps uniform over t_min..t_max, both included; standard normal noise."""

    t_min: int = 50
    t_max: int = 950

    def __post_init__(self) -> None:
        if not 0 <= self.t_min <= self.t_max:
            raise UserError(f"timesteps: need 0 <= t_min <= t_max, got t_min={self.t_min}, t_max={self.t_max}")

    def check(self, last: int) -> None:
        """Raises UserError if the model's schedule ends before t_max."""
        if self.t_max > last:
            raise UserError(f"timesteps: t_max={self.t_max}, but this model's last timestep is {last}")

    def timestep(self, ticket: Ticket) -> int:
        return int(torch.randint(self.t_min, self.t_max + 1, (), generator=ticket.generator("timestep")))

    def noise(self, ticket: Ticket, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=ticket.generator("noise"))

    def permutation(self, ticket: Ticket, stream: str, size: int) -> Tensor:
        return torch.randperm(size, generator=ticket.generator(stream))
