"""The scale of a model by a rule: LUSD's threshold and step, from draws where edits begin. Its derivation: docs/methods.md."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ..diffusion import Latents, PerImage, std
from ..draws import DrawKey
from ..errors import NotFiniteError, UserError
from ..gammas import Gamma
from ..models.memory import AllocationError
from ..normalizers import UnitStd
from ..prediction import Edit, Network
from .method import Method

log = logging.getLogger("sdist")

REFUSED = 0.15  # share of the draws at the sources that the threshold refuses: 0.16 on tinyworld, whose threshold is 0.01
TRAVEL = 0.6  # SDs of the latents that a run goes along what draws have in common: 0.61 on tinyworld, whose step is 0.035


@dataclass(frozen=True)
class Survey:
    """What draws at the source latents of one image tell."""

    latents: float  # SD of the source latents
    sds: PerImage  # of the raw gradient of each draw
    common: float  # mean over pairs of draws of the product of their gradients, each in units of its SD, per element


@dataclass(frozen=True)
class Calibration:
    """The scale of a model, and what it follows from."""

    step: float
    threshold: float
    latents: float  # SD of the images' latents
    drift: float  # how far steps of length and SD 1 go on average per element: 0 if draws are unrelated, 1 if all agree
    path: float  # the sum of gamma over a run
    sds: tuple[PerImage, ...]  # of the gradients of the draws of each image

    def refused(self, threshold: float) -> tuple[float, ...]:
        """The share of the draws of each image that a threshold refuses."""
        return tuple(float((sds < threshold).double().mean()) for sds in self.sds)

    def travel(self, step: float) -> float:
        """How far a run of that step goes along what the draws have in common, in SDs of the latents."""
        return step * self.path * self.drift / self.latents


@torch.no_grad()
def survey(network: Network, method: Method, edit: Edit, seed: int, key: str, draws: int, parallel: int) -> Survey:
    """The first attempts of `draws` steps of one image, evenly spread over the run, all at its source latents.

    The image is the row of `edit`; `parallel` draws are tried at once, or as many as fit in memory. Raises UserError for fewer
    than two draws, and for more than the method has steps.
    """
    if not 2 <= draws <= method.steps:
        raise UserError(f"draws must be at least 2 and at most {method.steps}, the steps of the method, got {draws}")
    keys = [DrawKey(seed, key, i * method.steps // draws, 0) for i in range(draws)]
    gradients = torch.cat(list(_gradients(network, method, edit, keys, parallel)))
    if not gradients.isfinite().all():
        raise NotFiniteError("a gradient at the source is not finite")
    return Survey(float(std(edit.source)), std(gradients).cpu(), common_of(gradients))


def _gradients(network: Network, method: Method, edit: Edit, keys: Sequence[DrawKey], parallel: int) -> Iterator[Latents]:
    """Of `parallel` draws at once, or of as many as fit in memory. Raises AllocationError where not even one does."""
    done = 0
    while done < len(keys):
        some = keys[done : done + parallel]
        try:
            yield _gradient(network, method, edit, some)
        except AllocationError as error:
            if len(some) == 1:
                raise
            parallel = len(some) // 2
            log.warning("%d draws at once do not fit in memory, going on with %d: %s", len(some), parallel, error.reason)
        else:
            done += len(some)


def _gradient(network: Network, method: Method, edit: Edit, keys: Sequence[DrawKey]) -> Latents:
    rows: Int[Tensor, " b"] = torch.zeros(len(keys), dtype=torch.long, device=edit.source.device)
    many = edit.narrow(rows)
    draw = method.draw(network, keys, many.source)
    return method.predict(network, many.source, many, draw, rows, method.states(1))[1]


def common_of(gradients: Latents) -> float:
    """The mean over pairs of rows, none with itself, of the mean over elements of g_i g_j / (SD(g_i) SD(g_j))."""
    unit, n = UnitStd()(gradients).flatten(1), len(gradients)
    both = unit.sum(0).square().mean() - unit.square().mean(1).sum()
    return float(both / (n * (n - 1)))


def path_of(gamma: Gamma, steps: int) -> float:
    """How far a run goes whose steps of length 1 all have one direction of SD 1: the sum of gamma."""
    return float(gamma(torch.arange(steps, dtype=torch.float64) / max(1, steps - 1)).sum())


def calibration(surveys: Sequence[Survey], path: float) -> Calibration:
    """The rule. Raises UserError where the draws have no direction in common, so that no step leads anywhere."""
    latents = (sum(one.latents**2 for one in surveys) / len(surveys)) ** 0.5
    common = sum(one.common for one in surveys) / len(surveys)
    if not common > 0:
        raise UserError("the gradients of different draws have no direction in common: this model does not know these prompts")
    drift, sds = common**0.5, tuple(one.sds for one in surveys)
    threshold = float(torch.cat(sds).double().quantile(REFUSED))
    return Calibration(TRAVEL * latents / (drift * path), threshold, latents, drift, path, sds)
