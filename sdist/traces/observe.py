"""A run of one image that keeps all that a trace holds: with draws of its own, or with those of a recorded trace."""

from collections import defaultdict
from dataclasses import dataclass, field, fields, replace
from typing import cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..diffusion import Latents
from ..distillation.distiller import ScoreDistiller, last_masks
from ..distillation.method import Method
from ..draws import DrawKey, RandomSampler, Sampler
from ..filters import Filter
from ..losses.cds import CDS, Terms
from ..prediction import Edit, Network, Prediction
from ..timesteps import Timesteps
from .trace import Trace

Arrays = dict[str, Tensor]


def observe(
    network: Network,
    edit: Edit,
    method: Method,
    identity: tuple[int, str] = (0, ""),
    follow: Trace | None = None,
    forced: bool = False,
) -> Arrays:
    """Runs one image to its end and returns the arrays of a trace, `z` holding the latents after each step.

    With `follow` the draws are those of that trace, and its verdicts decide which of them count, so that a run can be compared
    to its end; `accepted` are still our own. If `forced`, every step starts from the recorded latents instead of ours.
    """
    patches = method.loss.patches if isinstance(method.loss, CDS) else 0
    tap = Tap(method.timesteps, RandomSampler(), patches)
    if follow is not None:
        playback = Playback(follow.arrays, patches)
        tap = Tap(playback, playback, patches)
    method = replace(_watched(method, follow), timesteps=tap)
    distiller = ScoreDistiller(network, edit, method, [identity], sampler=tap)
    optimizer = distiller.configure_optimizers()
    arrays = defaultdict[str, list[Tensor]](list)
    until = method.steps if follow is None else follow.steps
    while (k := int(distiller.step[0])) < until:
        if forced and follow is not None:
            distiller.latents.data.copy_(follow.arrays["z_before"][k : k + 1])
        for name, value in _round(distiller, optimizer).items():
            arrays[name].append(value.cpu())
    steps = {name: torch.cat(values) for name, values in arrays.items()}
    return {**steps, **tap.arrays(), **_of_attempts(distiller), "z_final": distiller.latents.detach().cpu().clone()}


def _round(distiller: ScoreDistiller, optimizer: torch.optim.Optimizer) -> Arrays:
    """One call of the network, and the step if the draw was accepted: then what is known of it, one row of each array.

    Raises FloatingPointError for what is not finite.
    """
    before = distiller.latents.detach().clone()
    optimizer.zero_grad()
    distiller.training_step(None, 0).backward()
    optimizer.step()
    if distiller.failures:
        raise FloatingPointError(distiller.failures[0])
    if not len(distiller.accepted):
        return {}
    return {"z_before": before, "z": distiller.latents.detach().clone(), **_of_step(distiller)}


def _of_step(distiller: ScoreDistiller) -> Arrays:
    """What is known after an accepted draw, one row of each array."""
    gradient, loss = cast(Tensor, distiller.latents.grad), distiller.method.loss
    arrays = {"direction": gradient.clone()}
    if (masks := last_masks(distiller)) is not None:
        arrays["mask"] = masks[:, 0].clone()
    if isinstance(loss, _ObservedCDS):
        terms = loss.seen.pop()
        arrays |= {"dds": terms.dds, "cut": terms.cut, "cut_loss": terms.cut_loss}
    return arrays


def _of_attempts(distiller: ScoreDistiller) -> Arrays:
    values = {name: torch.cat([r.values[name] for r in distiller.rounds]) for name in ("grad_std", "threshold")}
    accept = distiller.method.filter
    verdicts = accept.judged if isinstance(accept, _FilterPlayback) else [r.accepted for r in distiller.rounds]
    return {**values, "accepted": torch.cat(verdicts).cpu()}


def _watched(method: Method, follow: Trace | None) -> Method:
    loss, accept = method.loss, method.filter
    if isinstance(loss, CDS):
        loss = _ObservedCDS(**{f.name: getattr(loss, f.name) for f in fields(loss)})
    if accept is not None and follow is not None:
        verdicts = follow.arrays["accepted"]
        accept = _FilterPlayback(redraw_timestep=True, max_attempts=len(verdicts) + 1, judge=accept, verdicts=verdicts)
    return replace(method, loss=loss, filter=accept)


@dataclass(frozen=True)
class _ObservedCDS(CDS):
    """Keeps its two terms apart for whoever looks."""

    seen: list[Terms] = field(default_factory=list)

    def terms(self, p: Prediction) -> Terms:
        self.seen.append(super().terms(p))
        return self.seen[-1]


@dataclass(frozen=True, kw_only=True)
class _FilterPlayback(Filter):
    """Accepts what was accepted when the trace was recorded, and keeps the verdicts that `judge` would give."""

    judge: Filter
    verdicts: Bool[Tensor, " attempts"]
    judged: list[Tensor] = field(default_factory=list)

    def threshold_at(self, attempt: Int[Tensor, " b"]) -> Tensor:
        return self.judge.threshold_at(attempt)

    def accept(self, gradient: Latents, attempt: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        self.judged.append(self.judge.accept(gradient, attempt) | (attempt + 1 >= self.judge.max_attempts))
        return self.verdicts[len(self.judged) - 1 : len(self.judged)].to(gradient.device)


class Tap(Timesteps):
    """Timesteps and a sampler that keep what they hand out."""

    def __init__(self, timesteps: Timesteps, sampler: Sampler, patches: int) -> None:
        self.timesteps, self.sampler, self.patches = timesteps, sampler, patches
        self.times: list[float] = []
        self.noises: list[Tensor] = []
        self.picked: list[list[Tensor]] = []

    def at(self, key: DrawKey, steps: int, last: int) -> float:
        self.times.append(self.timesteps.at(key, steps, last))
        self.picked.append([])
        return self.times[-1]

    def after(self, key: DrawKey, steps: int, last: int) -> float | None:
        return self.timesteps.after(key, steps, last)

    def noise(self, key: DrawKey, shape: tuple[int, ...]) -> Tensor:
        self.noises.append(self.sampler.noise(key, shape))
        return self.noises[-1]

    def permutation(self, key: DrawKey, stream: str, size: int) -> Tensor:
        chosen = self.sampler.permutation(key, stream, size)
        self.picked[-1].append(chosen[: self.patches])
        return chosen

    def arrays(self) -> Arrays:
        arrays = {"timestep": torch.tensor(self.times), "noise": torch.stack(self.noises)}
        return arrays | ({"patch_ids": torch.stack([torch.cat(p) for p in self.picked])} if self.patches else {})


class Playback(Timesteps):
    """Timesteps and a sampler that hand out the draws of a trace; made for one image, whose rows they take in their order."""

    def __init__(self, arrays: Arrays, patches: int) -> None:
        self.arrays, self.patches, self.row, self.used = arrays, patches, -1, 0

    def at(self, key: DrawKey, steps: int, last: int) -> int:
        self.row, self.used = self.row + 1, 0
        return int(self.arrays["timestep"][self.row])

    def noise(self, key: DrawKey, shape: tuple[int, ...]) -> Tensor:
        return self.arrays["noise"][self.row].reshape(shape).float()

    def permutation(self, key: DrawKey, stream: str, size: int) -> Tensor:
        first, self.used = self.used, self.used + min(self.patches, size)
        return self.arrays["patch_ids"][self.row, first : self.used].long()
