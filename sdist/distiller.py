"""The optimization itself: a LightningModule whose only parameter is the latents of the edited images."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from .diffusion import Latents, PerImage, alpha_sigma, per_image, std
from .method import Method
from .optimizer import PerImageOptimizer
from .prediction import Draw, Edit, Network, Prediction, Progress, predict
from .regularizers.base import Memory
from .sampling import Sampler, Ticket

log = logging.getLogger("sdist")


@dataclass(frozen=True)
class Round:
    """What one network call brought: a row for each image that took part; `values` hold nan where a draw was rejected."""

    slots: Int[Tensor, " b"]
    step: Int[Tensor, " b"]
    attempt: Int[Tensor, " b"]
    t: Int[Tensor, " b"]
    accepted: Bool[Tensor, " b"]
    values: dict[str, PerImage]


class ScoreDistiller(LightningModule):
    """Edits b images together; each has its own step, timestep, noise, verdict, mask and standard deviation.

    `identities` are the (seed, key) of each image: its draws depend on nothing else. A round tries `lanes` draws (default: one an
    image): the next of each of the first unfinished images, so that a finished image makes room for one that waits; where
    lanes are spare, further draws of the same images, which count only if all before them are rejected. So how many lanes
    there are changes the time that it takes, not the result.
    """

    def __init__(
        self,
        network: Network,
        edit: Edit,
        method: Method,
        sampler: Sampler,
        identities: list[tuple[int, str]],
        lanes: int | None = None,
    ) -> None:
        super().__init__()
        self.lanes = lanes or len(identities)
        self.latents = nn.Parameter(edit.source.clone())
        self.method, self.sampler, self.edit, self.identities = method, sampler, edit, identities
        self._network = (network,)  # in a tuple, so that neither its weights nor its buffers become this module's
        self.step = torch.zeros(len(edit.source), dtype=torch.long)
        self.attempt = torch.zeros_like(self.step)
        self.memory = {name: Memory(len(edit.source)) for name in method.regularizers}
        self.accepted: Int[Tensor, " m"] = torch.zeros(0, dtype=torch.long)
        self.rounds: list[Round] = []
        self._exhausted: set[int] = set()

    @property
    def network(self) -> Network:
        return self._network[0]

    @property
    def finished(self) -> bool:
        return bool((self.step >= self.method.steps).all())

    def training_step(self, batch: object, batch_idx: int) -> Tensor:
        """The surrogate whose gradient is exactly the direction; an image whose draw was rejected has a zero row."""
        direction = self.direction()
        return (self.latents * direction).sum()

    @torch.no_grad()
    def direction(self) -> Latents:
        """One round: one draw for every unfinished image, and what its optimizer gets; counters move on."""
        direction = torch.zeros_like(self.latents)
        slots, attempt = self._candidates()
        self.accepted = slots[:0]
        if len(slots) == 0:
            return direction
        p, gradient = self._gradient(slots, attempt)
        passed = self._passed(gradient, attempt)
        exhausted = ~passed & self._last(attempt).to(passed.device)
        verdict = passed | exhausted
        counts = first_until(slots, verdict.cpu())
        self._say_exhausted(slots[exhausted.cpu() & counts])
        rows = (verdict & counts.to(verdict.device)).nonzero()[:, 0]
        final, values = self._finalize(p.narrow(rows), gradient[rows])
        direction[p.slots[rows]] = final
        values = {"grad_std": std(gradient).cpu(), "threshold": self._threshold(attempt), **_spread(values, rows, len(slots))}
        columns = (slots, self.step[slots], attempt, p.draw.t.cpu(), verdict.cpu())
        self._advance(Round(*(c[counts] for c in columns), {name: value[counts] for name, value in values.items()}))
        return direction

    def _candidates(self) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """The image and the attempt of each draw of the next round, the draws of an image together and in their order."""
        active = (self.step < self.method.steps).nonzero()[: self.lanes, 0]
        ahead = torch.arange(self._tries(active))
        slots = active.repeat_interleave(len(ahead))
        return slots, self.attempt[slots] + ahead.repeat(len(active))

    def _tries(self, active: Int[Tensor, " n"]) -> int:
        """How many draws of an image to try at once: as many as a step has needed so far, if there are lanes to spare."""
        if self.method.filter is None or not len(active):
            return 1
        drawn = sum(len(r.slots) for r in self.rounds)
        needed = drawn / max(1, int(self.step.sum()))
        return max(1, min(self.lanes // len(active), round(needed)))

    def draw(self, slots: Int[Tensor, " b"], attempt: Int[Tensor, " b"]) -> Draw:
        """The draws of those images with those numbers of attempt in their present step."""
        rows = [(*self.identities[i], int(self.step[i]), n) for i, n in zip(slots.tolist(), attempt.tolist(), strict=True)]
        tickets = tuple(Ticket(*row) for row in rows)
        kept = self.method.filter is None or not self.method.filter.redraw_timestep
        timed = [Ticket(seed, key, step, 0) for seed, key, step, _ in rows] if kept else tickets
        t = torch.tensor([self.sampler.timestep(ticket) for ticket in timed], device=self.latents.device)
        noise = torch.stack([self.sampler.noise(ticket, self.latents.shape[1:]) for ticket in tickets])
        alpha, sigma = alpha_sigma(self.network.alphas_cumprod, t)
        return Draw(t, noise.to(self.latents), alpha, sigma, tickets, self.sampler)

    def _gradient(self, slots: Int[Tensor, " b"], attempt: Int[Tensor, " b"]) -> tuple[Prediction, Latents]:
        """The prediction for those draws, one row each, and the raw gradient."""
        method, on_device = self.method, slots.to(self.latents.device)
        z = self.latents.detach()[on_device].requires_grad_(method.loss.graph)
        progress = Progress(on_device, self.step[slots].to(z.device), method.steps)
        edit = self.edit if slots.tolist() == list(range(len(self.step))) else self.edit.narrow(on_device)
        with torch.set_grad_enabled(method.loss.graph):
            p = predict(self.network, z, edit, self.draw(slots, attempt), method.loss.branches, method.recorders, progress)
            gradient = method.loss.gradient(p).detach()
        self._check_finite(p, gradient)
        return p, gradient

    def _passed(self, gradient: Latents, attempt: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Which draws the filter lets through."""
        if self.method.filter is None:
            return torch.ones(len(gradient), dtype=torch.bool, device=gradient.device)
        return self.method.filter.accept(gradient, attempt.to(gradient.device))

    def _last(self, attempt: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Which draws are the last that a step may try, and so count whatever they are."""
        accept = self.method.filter
        return torch.zeros(len(attempt), dtype=torch.bool) if accept is None else attempt + 1 >= accept.max_attempts

    def _say_exhausted(self, slots: Int[Tensor, " n"]) -> None:
        for slot in slots.tolist():
            if slot not in self._exhausted:
                text = "image %d, step %d: no draw passed in %d attempts, the last one is used (said once an image)"
                log.warning(text, slot, int(self.step[slot]), self.method.filter.max_attempts)  # type: ignore[union-attr]
            self._exhausted.add(slot)

    def _finalize(self, p: Prediction, gradient: Latents) -> tuple[Latents, dict[str, PerImage]]:
        """Regularizers, normalizer and gamma, on accepted rows only; and what the log wants to know about them."""
        if len(gradient) == 0:
            return gradient, {}
        method, values = self.method, dict[str, PerImage]()
        for name, regularize in method.regularizers.items():
            gradient = regularize(gradient, p, self.memory[name])
            values |= regularize.diagnostics(p, self.memory[name])
        normalized = gradient if method.normalizer is None else method.normalizer(gradient)
        gamma = method.gamma(p.step.to(gradient.dtype) / max(1, method.steps - 1))
        direction = per_image(gamma) * normalized
        values |= {"gamma": gamma, "step_norm": method.optimizer.step_size(direction) * direction.flatten(1).norm(dim=1)}
        return direction, values

    def _threshold(self, attempt: Int[Tensor, " b"]) -> PerImage:
        accept = self.method.filter
        return torch.zeros(len(attempt)) if accept is None else accept.threshold_at(attempt)

    def _advance(self, done: Round) -> None:
        self.rounds.append(done)
        self.accepted = done.slots[done.accepted]
        self.attempt += torch.bincount(done.slots, minlength=len(self.attempt))
        self.attempt[self.accepted] = 0
        self.step[self.accepted] += 1

    def _check_finite(self, p: Prediction, gradient: Latents) -> None:
        bad = ~gradient.isfinite().flatten(1).all(1)
        if bad.any():
            row = int(bad.nonzero()[0, 0])
            raise FloatingPointError(
                f"{type(self.method.loss).__name__} gave a gradient that is not finite: image {int(p.slots[row])}, "
                f"step {int(p.step[row])}, timestep {int(p.draw.t[row])}"
            )

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


def first_until(slots: Int[Tensor, " n"], verdict: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Which draws count: of each image those up to the first good one; the draws of an image stand together."""
    before = verdict.long().cumsum(0) - verdict.long()  # good draws before each, of all images
    first = torch.searchsorted(slots, slots)  # where the draws of its image begin
    return before == before[first]


def _spread(values: dict[str, PerImage], rows: Int[Tensor, " m"], count: int) -> dict[str, PerImage]:
    """Values of accepted rows among all rows, nan for the others."""
    spread = {}
    for name, accepted in values.items():
        spread[name] = torch.full((count,), torch.nan)
        spread[name][rows.cpu()] = accepted.float().cpu()
    return spread
