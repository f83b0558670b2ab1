"""Gammas scale the direction over the run; progress goes from 0 at the first step to 1 at the last."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from .diffusion import PerImage
from .errors import UserError
from .registry import GAMMAS


class Gamma(ABC):
    """A frozen dataclass whose fields are its configuration."""

    @abstractmethod
    def __call__(self, progress: PerImage) -> PerImage:
        """The factor at each image's progress."""


@dataclass(frozen=True)
class Annealing(Gamma):
    """The settings of those that go down."""

    high: float = 0.15
    low: float = 0.01

    def __post_init__(self) -> None:
        if not self.high >= self.low >= 0 or not self.high > 0:
            raise UserError(f"gamma: goes down, so high >= low >= 0 and high > 0; got high={self.high}, low={self.low}")


@GAMMAS.register("constant")
@dataclass(frozen=True)
class Constant(Gamma):
    """The same factor throughout."""

    value: float = 1.0

    def __post_init__(self) -> None:
        if not self.value > 0:
            raise UserError(f"gamma: value must be above 0, got {self.value}")

    def __call__(self, progress: PerImage) -> PerImage:
        return torch.full_like(progress, self.value)


@GAMMAS.register("linear")
@dataclass(frozen=True)
class Linear(Annealing):
    """A straight line from high to low."""

    def __call__(self, progress: PerImage) -> PerImage:
        return self.high + (self.low - self.high) * progress


@GAMMAS.register("cosine")
@dataclass(frozen=True)
class Cosine(Annealing):
    """Half a cosine from high to low."""

    def __call__(self, progress: PerImage) -> PerImage:
        return self.low + (self.high - self.low) * (1 + torch.cos(torch.pi * progress)) / 2


@GAMMAS.register("reverse_sigmoid")
@dataclass(frozen=True)
class ReverseSigmoid(Annealing):
    """low + (high - low) (1 - sigmoid(u)), u linear from -speed to speed: LUSD's annealing, arXiv 2503.11054, eq. 4."""

    speed: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.speed > 0:
            raise UserError(f"gamma: speed must be above 0, or the factor would go up; got {self.speed}")

    def __call__(self, progress: PerImage) -> PerImage:
        return self.low + (self.high - self.low) * torch.sigmoid(self.speed * (1 - 2 * progress))


@GAMMAS.register("dvrf")
@dataclass(frozen=True)
class DVRF(Gamma):
    """2.2 ((top - tail) bump + tail u) with top = rate / 1.6 and tail = rate / 4: the step sizes of DVRF's release.

    u goes evenly from `first` to `last` within 0..1; bump is u^9 (1 - u)^7 over its largest value, at u = 9/16. With T levels of
    which k are skipped, the release has u = k / (T + 27) to (T - 1) / (T + 27), and the rate is 1/1.6 of the step between the two
    lowest of them.
    """

    rate: float = 0.036232  # of Stable Diffusion 3's 50 levels
    first: float = 0.0
    last: float = 49 / 77  # T = 50

    def __call__(self, progress: PerImage) -> PerImage:
        u = self.first + (self.last - self.first) * progress
        bump = (u / (9 / 16)) ** 9 * ((1 - u) / (7 / 16)) ** 7
        top, tail = self.rate / 1.6, self.rate / 4
        return 2.2 * ((top - tail) * bump + tail * u)
