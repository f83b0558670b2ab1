"""Filters accept or reject a draw by its raw gradient, before any regularizer has seen it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor

from .diffusion import Latents, PerImage, std
from .errors import UserError
from .registry import FILTERS


@dataclass(frozen=True)
class Filter(ABC):
    """The settings that every filter has: what is drawn again on a reject, and when to give up."""

    redraw_timestep: bool = False  # on a reject draw the timestep again too (release), or the noise alone (paper)
    max_attempts: int = 100  # draws per step; the last one is used whatever it is, and the log says so

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise UserError(f"filter: max_attempts must be at least 1, got {self.max_attempts}")

    @abstractmethod
    def threshold_at(self, attempt: Int[Tensor, " b"]) -> PerImage:
        """The threshold after that many rejects in the step, for the log."""

    @abstractmethod
    def accept(self, gradient: Latents, attempt: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Whether each image's gradient is good enough."""


@FILTERS.register("std_threshold")
@dataclass(frozen=True)
class StdThreshold(Filter):
    """Accepts if SD(g) >= threshold x decay^attempt. LUSD, arXiv 2503.11054, section 3.4, algorithm 1.

    SD is over all elements of one image's gradient, unbiased. The threshold belongs to the model's scale.
    """

    threshold: float = 0.01  # eta_0, at the first attempt of every step
    decay: float = 0.99  # factor per reject

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold < 0 or not 0 < self.decay <= 1:
            raise UserError(
                "filter std_threshold: need threshold >= 0 and decay within 0..1, not 0; "
                f"got threshold={self.threshold}, decay={self.decay}"
            )

    def threshold_at(self, attempt: Int[Tensor, " b"]) -> PerImage:
        return self.threshold * self.decay ** attempt.float()

    def accept(self, gradient: Latents, attempt: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        return std(gradient) >= self.threshold_at(attempt)
