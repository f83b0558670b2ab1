"""Filters accept or reject a draw by its raw gradient, before any regularizer has seen it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .diffusion import Latents, PerImage, std
from .errors import UserError
from .registry import FILTERS

Past = Float[Tensor, "b n"]  # SDs of the draws of the same image before, each row in any order, nan where there are fewer


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

    @property
    def reads_past(self) -> bool:
        """Whether it judges a draw by those before it; nothing is kept for others."""
        return False

    def accept_after(self, gradient: Latents, attempt: Int[Tensor, " b"], past: Past) -> tuple[Bool[Tensor, " b"], PerImage]:
        """Whether each gradient is accepted, and the threshold that it had to reach; most filters do not read the `past`."""
        return self.accept(gradient, attempt), self.threshold_at(attempt)


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


@FILTERS.register("std_quantile")
@dataclass(frozen=True)
class StdQuantile(Filter):
    """Accepts if SD(g) >= the quantile of the SDs of this image's draws so far, at level x decay^attempt; the first draw passes.

    Needs no number of a model's scale, and bounds what an edit costs: at most about 1 / (1 - level) draws per step. All draws of
    the image count, those of earlier steps and rejected ones too. No threshold is known in advance that the rounding of half
    precision could be held against, which is said with its figures.
    """

    level: float = 0.4  # share of an image's draws that are refused, roughly
    decay: float = 0.8  # of the level, per reject

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.level < 1 or not 0 < self.decay <= 1:
            raise UserError(
                "filter std_quantile: need level within 0..1, not 1, and decay within 0..1, not 0; "
                f"got level={self.level}, decay={self.decay}"
            )

    @property
    def reads_past(self) -> bool:
        return True

    def threshold_at(self, attempt: Int[Tensor, " b"]) -> PerImage:
        return torch.zeros(len(attempt), device=attempt.device)

    def accept(self, gradient: Latents, attempt: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        return self.accept_after(gradient, attempt, gradient.new_full((len(gradient), 1), torch.nan))[0]

    def accept_after(self, gradient: Latents, attempt: Int[Tensor, " b"], past: Past) -> tuple[Bool[Tensor, " b"], PerImage]:
        level = self.level * self.decay ** attempt.to(past)
        threshold = torch.nanquantile(past, level, dim=1).diagonal().nan_to_num(0.0)
        return std(gradient) >= threshold, threshold
