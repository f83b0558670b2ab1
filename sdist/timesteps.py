"""Timesteps: how noisy the latents of each draw are, from 0 (clean) to the last timestep of the model.

A filter that draws a timestep again after a reject (redraw_timestep) gets the same one where the step alone decides.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from .draws import DrawKey
from .errors import UserError
from .registry import TIMESTEPS


class Timesteps(ABC):
    """A frozen dataclass whose fields are its configuration; a pure function of the draw, of the run and of the model."""

    descends: ClassVar[bool] = False  # whether the steps of a run walk down a schedule

    @abstractmethod
    def at(self, key: DrawKey, steps: int, last: int) -> float:
        """The timestep of a draw in a run of so many steps, on a model whose last timestep is `last`."""

    def after(self, key: DrawKey, steps: int, last: int) -> float | None:
        """The timestep of the step that follows. None stands for clean data: at the end, and where draws walk nowhere."""
        following = replace(key, step=key.step + 1, attempt=0)
        return self.at(following, steps, last) if self.descends and following.step < steps else None

    def check(self, steps: int, last: int) -> None:  # noqa: B027
        """Raises UserError if the model has no such timesteps for a run of so many steps."""


def check_levels(timesteps: Timesteps, steps: int, last: int) -> None:
    """Raises UserError for a run of so many steps at clean data alone, where there is nothing to predict."""
    if not any(timesteps.at(DrawKey(0, "", step, 0), steps, last) for step in range(steps)):
        name = TIMESTEPS.name_of(timesteps)
        raise UserError(f"timesteps {name}: {timesteps} keeps {steps} steps at timestep 0, where nothing is left to do")


@dataclass(frozen=True)
class TimestepRange(Timesteps):
    """The settings of those that stay within two timesteps."""

    t_min: int = 50
    t_max: int = 950

    def __post_init__(self) -> None:
        if not 0 <= self.t_min <= self.t_max:
            raise UserError(f"timesteps: need 0 <= t_min <= t_max, got t_min={self.t_min}, t_max={self.t_max}")

    def check(self, steps: int, last: int) -> None:
        if self.t_max > last:
            raise UserError(f"timesteps: t_max={self.t_max}, but this model's last timestep is {last}")


@TIMESTEPS.register("uniform")
@dataclass(frozen=True)
class Uniform(TimestepRange):
    """Drawn uniformly from t_min..t_max, both included (DreamFusion, arXiv 2209.14988), then shifted.

    With u = t / last the timestep is last shift u / (1 + (shift - 1) u) (arXiv 2403.03206, eq. 23). A flow's own shift comes on
    top: the two are one whose shift is their product.
    """

    shift: float = 1.0  # above 1 noisier, 1 as drawn

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shift > 0:
            raise UserError(f"timesteps uniform: shift must be above 0, got {self.shift:g}")

    def at(self, key: DrawKey, steps: int, last: int) -> float:
        t = int(torch.randint(self.t_min, self.t_max + 1, (), generator=key.generator("timestep"), device="cpu"))
        return t if self.shift == 1 else self.shift * t / (1 + (self.shift - 1) * t / last)


@TIMESTEPS.register("annealed")
@dataclass(frozen=True)
class Annealed(TimestepRange):
    """t_max - (t_max - t_min) progress^power, progress from 0 at the first step to 1 at the last.

    Power 1/2 is the schedule of HiFA (Zhu and Zhuang 2023, arXiv 2305.18766), 1 a straight line (SDI, arXiv 2405.15891).
    """

    descends: ClassVar[bool] = True

    power: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.power > 0:
            raise UserError(f"timesteps annealed: power must be above 0, got {self.power}")

    def at(self, key: DrawKey, steps: int, last: int) -> int:
        progress = key.step / max(1, steps - 1)
        return round(self.t_max - (self.t_max - self.t_min) * progress**self.power)


@TIMESTEPS.register("prioritized")
@dataclass(frozen=True)
class Prioritized(TimestepRange):
    """Down from t_max to t_min, step k where a weight W has k/N of its sum above: slowly where W is large.

    W is 1 between `low` and `high`, and falls off as a Gaussian beside them. DreamTime (Huang et al. 2023, arXiv 2306.12422, v1).
    """

    descends: ClassVar[bool] = True

    low: int = 500  # m_2
    high: int = 800  # m_1
    low_sd: float = 100.0  # s_2, of what lies below `low`
    high_sd: float = 300.0  # s_1, of what lies above `high`

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low > self.high or min(self.low_sd, self.high_sd) <= 0:
            raise UserError(
                "timesteps prioritized: need low <= high and SDs above 0, got "
                f"low={self.low}, high={self.high}, low_sd={self.low_sd:g}, high_sd={self.high_sd:g}"
            )

    def at(self, key: DrawKey, steps: int, last: int) -> int:
        return self.t_max - int((_shares(self) - key.step / steps).abs().argmin())


@cache
def _shares(of: Prioritized) -> Float[Tensor, " t"]:
    """The parts of W's sum at t_max and above, at t_max - 1 and above, and so on."""
    t = torch.arange(of.t_max, of.t_min - 1, -1, dtype=torch.float64, device="cpu")
    exponent = -(((of.low - t).clamp(min=0) / of.low_sd) ** 2 + ((t - of.high).clamp(min=0) / of.high_sd) ** 2) / 2
    w = torch.exp(exponent - exponent.max())  # of which at least one is 1, however far the range lies from `low` and `high`
    return w.cumsum(0) / w.sum()


@TIMESTEPS.register("descending")
@dataclass(frozen=True)
class Descending(Timesteps):
    """Down the model's levels, evenly spaced from its last timestep to clean data, one level per step.

    A schedule of steps + skip levels whose first are left out: 33 steps after 17 are FlowEdit's 33 of 50 (arXiv 2412.08629).
    """

    descends: ClassVar[bool] = True

    skip: int = 0  # the noisiest levels, which the run does not visit
    end: float | None = None  # the last step's timestep; null: whole timesteps, as far from clean data as from one another

    def __post_init__(self) -> None:
        if self.skip < 0:
            raise UserError(f"timesteps descending: skip must be at least 0, got {self.skip}")
        if self.end is not None and not self.end > 0:
            raise UserError(f"timesteps descending: end must be above 0, got {self.end:g}")

    def at(self, key: DrawKey, steps: int, last: int) -> float:
        following = steps - key.step - 1
        if self.end is None:
            return round(last * (following + 1) / (steps + self.skip))
        return self.end + (last - self.end) * following / max(1, steps + self.skip - 1)

    def check(self, steps: int, last: int) -> None:
        if self.end is not None and self.end > last:
            raise UserError(f"timesteps descending: end is {self.end:g}, but this model's last timestep is {last}")
        if self.end is None and steps + self.skip > last:
            raise UserError(
                f"timesteps descending: {steps} steps and skip={self.skip} need {steps + self.skip} levels, this model has {last}"
                "; take less of either, or give an end, which allows fractions"
            )
