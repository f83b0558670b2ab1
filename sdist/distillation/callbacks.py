"""What a user sees of a run and says to it: a progress bar, a logger, every step of an image, and an early end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ..files.images import to_images
from ..models.base import Backbone
from .distiller import ScoreDistiller, last_mask
from .progress import Bar, steps_bar


class Observer(Callback):
    """A Lightning callback of a ScoreDistiller; a subclass overrides what it wants to know."""

    def on_start(self, distiller: ScoreDistiller) -> None:
        """Before the first round."""

    def on_round(self, distiller: ScoreDistiller) -> None:
        """After each round."""

    def on_end(self, distiller: ScoreDistiller) -> None:
        """After the last round, unless there was an exception."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_start(cast(ScoreDistiller, pl_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.on_round(cast(ScoreDistiller, pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_end(cast(ScoreDistiller, pl_module))


class ProgressBar(Observer):
    """Accepted steps of all images, with the gradient's SD and the draws per step; on the bar of a longer run if there is one."""

    def __init__(self, label: str = "edit", run: Bar | None = None, quiet: bool | None = None) -> None:
        self._label, self._bar, self._is_own, self._quiet = label, run, run is None, quiet
        self._steps = self._spared = self._draws = self._rounds = 0

    def on_start(self, distiller: ScoreDistiller) -> None:
        if self._bar is None:
            self._bar = steps_bar(distiller.method.steps * len(distiller.step), self._label, quiet=self._quiet)

    def on_round(self, distiller: ScoreDistiller) -> None:
        if self._bar is None:
            return
        self._draws += sum(len(r.images) for r in distiller.rounds[self._rounds :])
        self._rounds = len(distiller.rounds)
        before, self._steps = self._steps, int(distiller.step.sum())
        spared = int((distiller.method.steps - distiller.schedule.ends).sum())  # steps that ended images did not need
        self._bar.update(self._steps + spared - before - self._spared)
        self._spared = spared
        if distiller.rounds:
            sd = float(distiller.rounds[-1].values["grad_std"].mean())
            draws = f"{self._draws / self._steps:.2f}/step" if self._steps else str(self._draws)
            self._bar.set_postfix(sd=f"{sd:.4f}", draws=draws, refresh=False)

    def on_end(self, distiller: ScoreDistiller) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None and self._is_own:
            self._bar.close()


@dataclass(frozen=True)
class Snapshot:
    """An image before its first step, or just after one."""

    step: int  # made so far, 0..steps
    steps: int
    attempts: int  # draws that this step took; 0 before the first, as the next two
    grad_std: float  # SD of the gradient that was accepted
    threshold: float  # that it had to reach; 0 without a filter
    latents: Tensor = field(repr=False)  # (1, c, h, w), a copy
    mask: Tensor | None = field(repr=False)  # (1, h, w) in 0..1, a copy
    backbone: Backbone = field(repr=False)
    branches: Mapping[str, Tensor] = field(default_factory=dict, repr=False)  # of two branches: what each takes the image to be

    @property
    def image(self) -> Image.Image:
        """The image, decoded now: this takes longer than a step of a small model."""
        return to_images(self.backbone.decode(self.latents))[0]


class StepObserver(Observer):
    """Hands the encoded first image to `on_step`, and then every step of it."""

    def __init__(self, on_step: Callable[[Snapshot], None]) -> None:
        self._on_step = on_step

    def show(self, snapshot: Snapshot) -> None:
        """For editors that are no distillers."""
        self._on_step(snapshot)

    def on_start(self, distiller: ScoreDistiller) -> None:
        self._show_step(distiller, 0, 0.0, 0.0)

    def on_round(self, distiller: ScoreDistiller) -> None:
        if 0 not in distiller.accepted:
            return
        last = distiller.rounds[-1]
        (row,) = ((last.images == 0) & last.accepted).nonzero()[:, 0].tolist()
        grad_std, threshold = (float(last.values[name][row]) for name in ("grad_std", "threshold"))
        self._show_step(distiller, int(last.attempt[row]) + 1, grad_std, threshold)

    def _show_step(self, distiller: ScoreDistiller, attempts: int, grad_std: float, threshold: float) -> None:
        step, latents, mask = int(distiller.step[0]), distiller.latents[:1].detach().clone(), last_mask(distiller, 0)
        model = cast(Backbone, distiller.network)  # an editor's network is its model
        self._on_step(Snapshot(step, distiller.method.steps, attempts, grad_std, threshold, latents, mask, model))


class StopCondition(Observer):
    """Ends the run after the first round at which it is `wanted`; each image is then delivered as it is."""

    def __init__(self, wanted: Callable[[Any], bool]) -> None:
        self.wanted = wanted  # of what has the steps so far, `step`, one per image: a ScoreDistiller, or a Walk

    def on_round(self, distiller: ScoreDistiller) -> None:
        distiller.schedule.stopped |= self.wanted(distiller)
