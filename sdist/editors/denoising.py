"""Editors that walk noisy latents down a schedule: images several at a time, decoded and delivered as soon as they are there."""

import logging
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Int
from pytorch_lightning import Callback
from torch import Tensor

from ..diffusion import Latents
from ..distillation.callbacks import Snapshot, StepObserver, StopCondition
from ..distillation.trainer import default_parallel
from ..edits.request import Prepared, Result
from ..errors import ImagesError
from ..files.images import to_images
from ..models.base import Backbone
from ..models.finite import check_finite
from ..models.memory import AllocationError, allocating
from ..models.precision import Precision, lower
from .base import FAULTS, Editor, Observers, reason_of

log = logging.getLogger("sdist")


class WalkOutput(NamedTuple):
    """Edited latents, and for each image the mask (1, h, w) in 0..1 that its edit kept to, where it has one.

    `branches` is what each branch takes the images to be, where several walk side by side: "source", and "edit" without the mask.
    """

    latents: Latents
    masks: Sequence[Tensor | None]
    branches: Mapping[str, Latents] = MappingProxyType({})


@dataclass(frozen=True)
class Walk:
    """How far images are that walk side by side."""

    step: Int[Tensor, " b"]


class Denoising(Editor):
    """A frozen dataclass whose `walk` makes the edited latents of some images."""

    queues: ClassVar[bool] = True
    ignores: ClassVar[frozenset[str]] = frozenset({"compile", "checkpoint", "scale", "log"})

    @abstractmethod
    def walk(self, model: Backbone, batch: Sequence[Prepared]) -> Latents:
        """The edited latents of images of one size; each is what it would be alone, up to float rounding."""

    def walk_steps(self, model: Backbone, batch: Sequence[Prepared]) -> Iterator[WalkOutput]:
        """The edited latents alone, but for a WatchedDenoising."""
        yield WalkOutput(self.walk(model, batch), [None] * len(batch))

    def adapt(self, model: Backbone, precision: Precision) -> None:
        lower(model, precision, None)

    def parallel(self, model: Backbone, images: int, size: tuple[int, int]) -> int:
        return default_parallel(model.device, images, size, filtered=False)

    def edit(self, model: Backbone, batch: Sequence[Prepared], run: Observers) -> list[Result]:
        at_once = run.parallel or self.parallel(model, len(batch), model.latent_size(batch[0].image.size))
        results, failures, done = list[Result](), dict[int, str](), 0
        while done < len(batch):
            group = range(done, min(done + at_once, len(batch)))
            some = [place for place in group if run.admit is None or run.admit(place)]
            try:
                callbacks = _unseen(run.callbacks) if done else run.callbacks
                made = self._edit_group(model, [batch[place] for place in some], callbacks) if some else []
            except AllocationError as error:
                at_once = len(some) // 2
                log.warning("%s; going on with %d", error, at_once)
                continue
            for place, one in zip(some, made, strict=True):
                if isinstance(one, str):
                    failures[place] = one
                else:
                    results.append(one)
                    run.deliver(one)
            done += len(group)
        if failures:
            raise ImagesError(failures)
        return results

    def _edit_group(self, model: Backbone, batch: Sequence[Prepared], callbacks: Sequence[Callback]) -> list[Result | str]:
        """The result of each image, or why there is none. Raises AllocationError if several do not fit together."""
        count, start = len(batch), time.perf_counter()
        try:
            with (
                torch.no_grad(),
                allocating(model.device, f"a group of {count} images" if count > 1 else "one image of this size"),
            ):
                walked, steps = self._watched(model, batch, callbacks)
        except FAULTS as error:
            if count == 1:
                return [reason_of(batch[0], error)]
            if isinstance(error, AllocationError):
                raise
        else:
            seconds = (time.perf_counter() - start) / count
            is_whole = steps == self.steps or not self.watchable
            each = zip(batch, walked.latents, walked.masks, strict=True)
            made = [_decoded(model, prepared, z[None], mask, (1,) * steps, count, seconds) for prepared, z, mask in each]
            return [one if isinstance(one, str) else replace(one, is_whole=is_whole) for one in made]
        first, *others = batch
        made = self._edit_group(model, [first], callbacks)
        return [*made, *(one for prepared in others for one in self._edit_group(model, [prepared], _unseen(callbacks)))]

    def _watched(self, model: Backbone, batch: Sequence[Prepared], callbacks: Sequence[Callback]) -> tuple[WalkOutput, int]:
        """The images at the end of their walk, or where it was stopped, and how many steps could be watched."""
        for made, walked in enumerate(self.walk_steps(model, batch)):
            if not self.watchable:
                continue
            latents, *first = (z[:1].detach().clone() for z in (walked.latents, *walked.branches.values()))
            branches = dict(zip(walked.branches, first, strict=True))
            for observer in (callback for callback in callbacks if isinstance(callback, StepObserver)):
                observer.show(Snapshot(made, self.steps, min(made, 1), 0.0, 0.0, latents, walked.masks[0], model, branches))
            walk = Walk(torch.full((len(batch),), made))
            if any(callback.wanted(walk) for callback in callbacks if isinstance(callback, StopCondition)):
                break
        return walked, made


class WatchedDenoising(Denoising):
    """One whose `walk_steps` makes every step, for those who watch; its end is the edit."""

    @property
    def watchable(self) -> bool:
        return True

    @abstractmethod
    def walk_steps(self, model: Backbone, batch: Sequence[Prepared]) -> Iterator[WalkOutput]:
        """The encoded images, then what each step makes of them; each image is what it would be alone, up to float rounding."""

    def walk(self, model: Backbone, batch: Sequence[Prepared]) -> Latents:
        *_, last = self.walk_steps(model, batch)
        return last.latents


def _unseen(callbacks: Sequence[Callback]) -> list[Callback]:
    """Those for images of which no steps are shown: the first image alone is."""
    return [callback for callback in callbacks if isinstance(callback, StopCondition)]


def _decoded(
    model: Backbone, prepared: Prepared, z: Latents, mask: Tensor | None, attempts: tuple[int, ...], parallel: int, seconds: float
) -> Result | str:
    """The result with its decoded image, or why there is none."""
    start = time.perf_counter()
    try:
        check_finite(f"the denoiser ({model.denoiser_name})", z)
        (image,) = to_images(model.decode(z))
    except FAULTS as error:
        return reason_of(prepared, error)
    timings = {"edit": round(seconds, 3), "decode": round(time.perf_counter() - start, 3)}
    return Result(prepared, image, mask, attempts, parallel, timings)
