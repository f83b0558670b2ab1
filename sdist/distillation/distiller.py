"""The optimization itself: a LightningModule whose only parameter is the latents of the edited images."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from ..diffusion import Latents, PerImage, per_image, std
from ..draws import Sampler, Ticket
from ..errors import UserError
from ..models.memory import describe, is_full
from ..optimizer import PerImageOptimizer
from ..prediction import Draw, Edit, Network, Prediction, Progress, State, predict
from ..regularizers.mask import Mask
from .method import Method
from .schedule import Schedule, first_until

log = logging.getLogger("sdist")


@dataclass(frozen=True)
class Round:
    """The draws of one network call that count, a row each; `values` hold nan where only an accepted draw has a value.

    Columns are on the host; so are the values grad_std and threshold, the others are on the run's device.
    """

    images: Int[Tensor, " b"]
    step: Int[Tensor, " b"]
    attempt: Int[Tensor, " b"]
    t: Int[Tensor, " b"]
    accepted: Bool[Tensor, " b"]
    values: dict[str, PerImage]


class Verdict(NamedTuple):
    """Of each draw of a round, on the host."""

    good: Bool[Tensor, " b"]  # passed, or the last that its step may try
    exhausted: Bool[Tensor, " b"]  # the latter only
    finite: Bool[Tensor, " b"]
    t: Int[Tensor, " b"]
    sd: PerImage


class ScoreDistiller(LightningModule):
    """Edits a queue of images, at most `lanes` draws and at least `least` at a time (see Schedule); by default one lane an image.

    Each image has its own step, timestep, noise, verdict, mask and standard deviation. `identities` are the (seed, key) of
    each: its draws depend on nothing else. An image whose gradient is not finite ends in `failures`, the others go on.
    """

    def __init__(
        self,
        network: Network,
        edit: Edit,
        method: Method,
        sampler: Sampler,
        identities: list[tuple[int, str]],
        lanes: int | None = None,
        least: int | None = None,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(edit.source.clone())
        self.method, self.sampler, self.edit, self.identities = method, sampler, edit, identities
        self._network = (network,)  # in a tuple, so that neither its weights nor its buffers become this module's
        self.schedule = Schedule(len(identities), method.steps, lanes or len(identities), least)
        self.states = {name: State(len(identities)) for name in method.regularizers}
        self.accepted: Int[Tensor, " m"] = torch.zeros(0, dtype=torch.long)
        self.rounds: list[Round] = []
        self.seconds = torch.zeros(len(identities))  # each image's share of the rounds so far
        self.failures: dict[int, str] = {}
        self._exhausted: set[int] = set()

    @property
    def network(self) -> Network:
        return self._network[0]

    @property
    def step(self) -> Int[Tensor, " images"]:
        """How many steps each image has made."""
        return self.schedule.step

    @property
    def finished(self) -> bool:
        return not len(self.schedule.active)

    def training_step(self, batch: object, batch_idx: int) -> Tensor:
        """The surrogate whose gradient is exactly the direction; an image that took no step has a zero row."""
        direction = self.direction()
        return (self.latents * direction).sum()

    @torch.no_grad()
    def direction(self) -> Latents:
        """One round of draws, and what their images' optimizers get; counters move on."""
        start, direction = time.perf_counter(), torch.zeros_like(self.latents)
        images, attempt = self.schedule.candidates()
        self.accepted = images[:0]
        evaluated = self._evaluate(images, attempt) if len(images) else None
        if evaluated is None:
            return direction
        p, gradient = evaluated
        verdict = self._judge(p, gradient, attempt)
        counts = first_until(images, verdict.good | ~verdict.finite)
        self._say_exhausted(images[counts & verdict.exhausted])
        self._fail(images, verdict.t, counts & ~verdict.finite)
        rows = (counts & verdict.good).nonzero()[:, 0]
        direction[p.images[rows]], values = self._finalize(p.narrow(rows), gradient[rows])
        values = {"grad_std": verdict.sd, "threshold": self._threshold(attempt), **_spread(values, rows, len(images))}
        columns = (images, self.step[images], attempt, verdict.t, verdict.good)
        self.rounds.append(Round(*(c[counts] for c in columns), {n: v[counts.to(v.device)] for n, v in values.items()}))
        self.schedule.advance(images, counts, verdict.good)
        self.accepted = images[rows]
        self.seconds += torch.bincount(images, minlength=len(self.seconds)) / len(images) * (time.perf_counter() - start)
        return direction

    def _evaluate(self, images: Int[Tensor, " b"], attempt: Int[Tensor, " b"]) -> tuple[Prediction, Latents] | None:
        """The prediction for those draws and the raw gradient; None if they do not fit in memory, and fewer will be tried."""
        try:
            return self._gradient(images, attempt)
        except RuntimeError as error:
            if not is_full(error):
                raise
            reason = describe(error, self.latents.device)
        height, width = self.latents.shape[-2:]
        if len(images) == 1:
            raise UserError(f"one draw for latents of {width} x {height} does not fit in memory: {reason}")
        self.schedule.lanes = len(images) // 2
        log.warning("%d draws at once do not fit in memory, going on with %d: %s", len(images), self.schedule.lanes, reason)
        return None

    def draw(self, images: Int[Tensor, " b"], attempt: Int[Tensor, " b"]) -> Draw:
        """The draws of those images with those numbers of attempt in their present step."""
        rows = [(*self.identities[i], int(self.step[i]), n) for i, n in zip(images.tolist(), attempt.tolist(), strict=True)]
        tickets = tuple(Ticket(*row) for row in rows)
        kept = self.method.filter is None or not self.method.filter.redraw_timestep
        timed = [Ticket(seed, key, step, 0) for seed, key, step, _ in rows] if kept else tickets
        t = torch.tensor([self.sampler.timestep(ticket) for ticket in timed], device=self.latents.device)
        noise = torch.stack([self.sampler.noise(ticket, self.latents.shape[1:]) for ticket in tickets])
        return Draw(t, noise.to(self.latents), *self.network.scales(t), tickets, self.sampler)

    def _gradient(self, images: Int[Tensor, " b"], attempt: Int[Tensor, " b"]) -> tuple[Prediction, Latents]:
        method, on_device = self.method, images.to(self.latents.device)
        z = self.latents.detach()[on_device].requires_grad_(method.loss.graph)
        progress = Progress(on_device, self.step[images].to(z.device), method.steps)
        edit = self.edit if images.tolist() == list(range(len(self.step))) else self.edit.narrow(on_device)
        with torch.set_grad_enabled(method.loss.graph):
            p = predict(self.network, z, edit, self.draw(images, attempt), method.branches, method.recorders, progress)
            return p, method.loss.gradient(p).detach()

    def _judge(self, p: Prediction, gradient: Latents, attempt: Int[Tensor, " b"]) -> Verdict:
        """What the host must know to go on; here, and only here, a round waits for the device."""
        accept, sd = self.method.filter, std(gradient)
        finite = gradient.isfinite().flatten(1).all(1)
        passed = torch.ones_like(finite) if accept is None else accept.accept(gradient, attempt.to(gradient.device))
        facts = torch.stack([passed.to(sd), finite.to(sd), p.draw.t.to(sd), sd]).cpu()
        passed, finite = facts[:2].bool()
        last = torch.zeros_like(passed) if accept is None else attempt + 1 >= accept.max_attempts
        return Verdict((passed | last) & finite, last & ~passed & finite, finite, facts[2].long(), facts[3])

    def _say_exhausted(self, images: Int[Tensor, " n"]) -> None:
        for image in images.tolist():
            if image not in self._exhausted:
                text = "image %d, step %d: no draw passed in %d attempts, the last one is used (said once an image)"
                log.warning(text, image, int(self.step[image]), self.method.filter.max_attempts)  # type: ignore[union-attr]
            self._exhausted.add(image)

    def _finalize(self, p: Prediction, gradient: Latents) -> tuple[Latents, dict[str, PerImage]]:
        """Regularizers, normalizer and gamma, on accepted rows only; and what the log wants to know about them."""
        if len(gradient) == 0:
            return gradient, {}
        method, values = self.method, dict[str, PerImage]()
        for name, regularize in method.regularizers.items():
            p = replace(p, state=self.states[name])
            gradient = regularize(gradient, p)
            values |= regularize.diagnostics(p)
        normalized = gradient if method.normalizer is None else method.normalizer(gradient)
        gamma = method.gamma(p.step.to(gradient.dtype) / max(1, method.steps - 1))
        direction = per_image(gamma) * normalized
        values |= {"gamma": gamma, "step_norm": method.optimizer.step_size(direction) * direction.flatten(1).norm(dim=1)}
        return direction, values

    def _threshold(self, attempt: Int[Tensor, " b"]) -> PerImage:
        accept = self.method.filter
        return torch.zeros(len(attempt)) if accept is None else accept.threshold_at(attempt)

    def _fail(self, images: Int[Tensor, " b"], t: Int[Tensor, " b"], rows: Bool[Tensor, " b"]) -> None:
        """Ends the images of those rows, and keeps why."""
        name = type(self.method.loss).__name__
        for image, at in zip(images[rows].tolist(), t[rows].tolist(), strict=True):
            text = f"{name} gave a gradient that is not finite: step {int(self.step[image])}, timestep {at}"
            self.failures[image], self.schedule.failed[image] = text, True

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return PerImageOptimizer(self.latents, self.method.optimizer, lambda: self.accepted)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(_Rounds(self), batch_size=None)


class _Rounds(IterableDataset):
    """One item a round, until every image is done."""

    def __init__(self, distiller: ScoreDistiller) -> None:
        self.distiller = distiller

    def __iter__(self) -> Iterator[int]:
        while not self.distiller.finished:
            yield 0


def _spread(values: dict[str, Float[Tensor, " m"]], rows: Int[Tensor, " m"], count: int) -> dict[str, Float[Tensor, " b"]]:
    """Values of accepted rows among all rows, nan for the others."""
    spread = {}
    for name, accepted in values.items():
        spread[name] = torch.full((count,), torch.nan, device=accepted.device)
        spread[name][rows] = accepted.float()
    return spread


def last_masks(distiller: ScoreDistiller) -> Mask | None:
    """The last mask of every image, zeros before its first step; None without a mask, or before any step."""
    name = distiller.method.mask
    return None if name is None else distiller.states[name].tensors.get("mask")


def last_mask(distiller: ScoreDistiller, image: int) -> Tensor | None:
    """The last mask of an image; None without a mask, or before its first step."""
    masks = last_masks(distiller)
    return None if masks is None or distiller.step[image] == 0 else masks[image].clone()


def attempts_of(distiller: ScoreDistiller, image: int) -> tuple[int, ...]:
    """How many draws each step of a picture took."""
    found = ((r, (r.images == image) & r.accepted) for r in distiller.rounds)
    return tuple(int(r.attempt[own][0]) + 1 for r, own in found if own.any())
