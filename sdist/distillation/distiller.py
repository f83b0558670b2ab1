"""The optimization itself: a LightningModule whose only parameter is the latents of the edited images."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Real
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from ..diffusion import Latents, PerImage
from ..draws import DrawKey, Sampler
from ..errors import UserError
from ..errors.arguments import checked
from ..models.memory import AllocationError
from ..optimizer import PerImageOptimizer
from ..prediction import Edit, Network
from ..regularizers.mask import Mask
from .method import Method, Step
from .schedule import Schedule

log = logging.getLogger("sdist")


FEW = (60, 0.05)  # draws of an image, and the share of them that is too small to get anywhere


@dataclass(frozen=True)
class Round:
    """The draws of one network call that count, a row each; `values` hold nan where only an accepted draw has a value.

    Columns are on the host; so are the values grad_std and threshold, the others are on the run's device.
    """

    images: Int[Tensor, " b"]
    step: Int[Tensor, " b"]
    attempt: Int[Tensor, " b"]
    t: Real[Tensor, " b"]
    accepted: Bool[Tensor, " b"]
    values: dict[str, PerImage]


class ScoreDistiller(LightningModule):
    """Edits a queue of images, at most `parallel` draws and at least `min_parallel` at a time (see Schedule).

    Under a Trainer with a logger it logs the values of every round, see `scalars`, over the accepted steps.
    By default all images are tried at once. Each has its own step, timestep, noise, verdict, mask and standard deviation.
    `identities` are the (seed, key) of each: its draws depend on nothing else; `names` are for messages and logs. `admit` and
    `staggered` say when each begins, see Schedule. An image whose gradient is not finite, or of which not even one draw fits in
    memory, ends in `failures`; the others go on.
    """

    @checked()
    def __init__(
        self,
        network: Network,
        edit: Edit,
        method: Method,
        identities: list[tuple[int, str]],
        parallel: int | None = None,
        min_parallel: int | None = None,
        sampler: Sampler | None = None,
        admit: Callable[[int], bool] | None = None,
        staggered: bool = False,
        names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if len(identities) != len(edit.source):
            raise UserError(f"identities are one (seed, key) for each of {len(edit.source)} images, got {len(identities)}")
        self.latents = nn.Parameter(edit.source.clone())
        self.method, self.sampler, self.edit, self.identities = method, sampler, edit, identities
        self._network = (network,)  # in a tuple, so that neither its weights nor its buffers become this module's
        at_once = parallel or len(identities)
        self.schedule = Schedule(len(identities), method.steps, at_once, min_parallel, admit, staggered)
        self.states = method.states(len(identities))
        self.accepted: Int[Tensor, " m"] = torch.zeros(0, dtype=torch.long)
        self.rounds: list[Round] = []
        self.seconds = torch.zeros(len(identities))  # each image's share of the rounds so far
        self.failures: dict[int, str] = {}
        self.names = names or [f"image {i}" for i in range(len(identities))]
        self._reported: set[tuple[str, int]] = set()  # what is logged once per image
        self._logged: set[str] = set()

    @property
    def network(self) -> Network:
        return self._network[0]

    @property
    def step(self) -> Int[Tensor, " images"]:
        """How many steps each image has made."""
        return self.schedule.step

    @property
    def steps_made(self) -> int:
        """Accepted steps of an image, averaged over all and rounded down: the x axis of what is logged."""
        return int(self.step.sum()) // len(self.step)

    @property
    def finished(self) -> bool:
        return not len(self.schedule.active)

    def training_step(self, batch: object, batch_idx: int) -> Tensor:
        """The surrogate whose gradient is exactly the direction; an image that took no step has a zero row."""
        rounds, direction = len(self.rounds), self.direction()
        if len(self.rounds) > rounds and self._trainer is not None and self._trainer.loggers:
            self._log_round(self.rounds[-1])
        return (self.latents * direction).sum()

    def on_train_batch_start(self, batch: object, batch_idx: int) -> int | None:
        """-1, which ends the training, where all images are done: a batch is fetched ahead."""
        return -1 if self.finished else None

    def _log_round(self, last: Round) -> None:
        """Lightning takes "step" for the x axis, and keeps what it is not told anew: so what has no value now is nan."""
        values = scalars(last)
        absent = dict.fromkeys(self._logged - values.keys(), float("nan"))
        self._logged |= values.keys()
        self.log_dict({**absent, **values, "step": float(self.steps_made)}, batch_size=len(last.images))

    @torch.no_grad()
    def direction(self) -> Latents:
        """One round of draws, and what their images' optimizers get; counters move on."""
        start, direction = time.perf_counter(), torch.zeros_like(self.latents)
        images, attempt = self.schedule.candidates()
        self.accepted = images[:0]
        step = self._try(images, attempt) if len(images) else None
        if step is None:
            return direction
        verdict, counts = step.verdict, step.counts
        self._report_exhausted(images[counts & verdict.exhausted])
        self._report_rejected(images[counts].unique())
        for row in (counts & ~verdict.finite).nonzero()[:, 0].tolist():
            image = int(images[row])
            self._fail(image, f"{step.faults[row]}: step {int(self.step[image])}, timestep {float(verdict.t[row]):g}")
        self.rounds.append(self._round(images, attempt, step))
        self.schedule.advance(images, counts, verdict.good)
        self.accepted = images[step.rows]
        self.schedule.finish(self.accepted[step.last])
        self.states.loss.free((self.schedule.done | self.schedule.failed).nonzero()[:, 0].tolist())
        direction[self.accepted.to(direction.device)] = step.direction
        self.seconds += torch.bincount(images, minlength=len(self.seconds)) / len(images) * (time.perf_counter() - start)
        return direction

    def _try(self, images: Int[Tensor, " b"], attempt: Int[Tensor, " b"]) -> Step | None:
        """What the method makes of those draws; None if they do not fit: fewer will be tried, or the one image has failed."""
        on_device = images.to(self.latents.device)
        z = self.latents.detach()[on_device]
        keys = [self._key(image, n) for image, n in zip(images.tolist(), attempt.tolist(), strict=True)]
        edit = self.edit if images.tolist() == list(range(len(self.step))) else self.edit.narrow(on_device)
        try:
            draw = self.method.draw(self.network, keys, z, self.sampler)
            return self.method.direction(self.network, z, edit, draw, on_device, self.states)
        except AllocationError as error:
            reason = error.reason
        height, width = self.latents.shape[-2:]
        if len(images) == 1:
            self._fail(int(images[0]), f"one draw for latents of {width} x {height} does not fit in memory: {reason}")
            return None
        self.schedule.parallel = len(images) // 2
        log.warning("%d draws at once do not fit in memory, going on with %d: %s", len(images), self.schedule.parallel, reason)
        return None

    def _key(self, image: int, attempt: int) -> DrawKey:
        return DrawKey(*self.identities[image], int(self.step[image]), attempt)

    def _round(self, images: Int[Tensor, " b"], attempt: Int[Tensor, " b"], step: Step) -> Round:
        """Of the draws that count."""
        verdict = step.verdict
        values = {"grad_std": verdict.sd, "threshold": verdict.threshold, **_spread(step.values, step.rows, len(images))}
        counts = step.counts
        return Round(
            images[counts],
            self.step[images[counts]],
            attempt[counts],
            verdict.t[counts],
            verdict.good[counts],
            {name: value[counts.to(value.device)] for name, value in values.items()},
        )

    def _report_exhausted(self, images: Int[Tensor, " n"]) -> None:
        accept = self.method.filter
        for image in images.tolist():
            if accept is not None and self._is_news("exhausted", image):
                text = "%s, step %d: no draw passed in %d attempts, the last one is used (said once per image)"
                log.warning(text, self.names[image], int(self.step[image]), accept.max_attempts)

    def _report_rejected(self, images: Int[Tensor, " n"]) -> None:
        """Warns, once and early, that hardly a draw of an image passes."""
        for image in images.tolist():
            steps, rejects = int(self.step[image]), int(self.schedule.tried[image]) - int(self.step[image])
            if steps + rejects >= FEW[0] and steps <= FEW[1] * (steps + rejects) and self._is_news("rejected", image):
                text = (
                    "%s: %d of the first %d draws passed the filter, so the edit takes long and may go nowhere; "
                    "prompts that differ more help, or a lower threshold (--set scale.threshold=...)"
                )
                log.warning(text, self.names[image], steps, steps + rejects)

    def _is_news(self, what: str, image: int) -> bool:
        is_news = (what, image) not in self._reported
        self._reported.add((what, image))
        return is_news

    def _fail(self, image: int, reason: str) -> None:
        """Ends an image, and keeps why."""
        self.failures[image], self.schedule.failed[image] = reason, True

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return PerImageOptimizer(self.latents, self.method.optimizer, lambda: self.accepted)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(_Rounds(self), batch_size=None, generator=torch.Generator())  # it would draw from the global one


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


def scalars(last: Round) -> dict[str, float]:
    """The round's values averaged over images (over accepted ones where only those have a value)."""
    values = {name: float(torch.nanmean(value)) for name, value in last.values.items() if not value.isnan().all()}
    values |= {"attempts": float((last.attempt + 1).float().mean()), "accepted": float(last.accepted.float().mean())}
    return {**values, "timestep": float(last.t.float().mean())}


def last_masks(distiller: ScoreDistiller) -> Mask | None:
    """The last mask of every image, zeros before its first step; None without a mask, or before any step."""
    name = distiller.method.mask
    return None if name is None else distiller.states.regularizers[name].tensors.get("mask")


def last_mask(distiller: ScoreDistiller, image: int) -> Tensor | None:
    """The last mask of an image; None without a mask, or before its first step."""
    masks = last_masks(distiller)
    return None if masks is None or distiller.step[image] == 0 else masks[image].clone()


def attempts_of(distiller: ScoreDistiller, image: int) -> tuple[int, ...]:
    """How many draws each step of an image took."""
    accepted = ((r, (r.images == image) & r.accepted) for r in distiller.rounds)
    return tuple(int(r.attempt[rows][0]) + 1 for r, rows in accepted if rows.any())
