"""Editors that walk noisy latents down a schedule: images several at a time, decoded and delivered as soon as they are there."""

import logging
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..diffusion import Latents
from ..distillation.trainer import default_parallel
from ..edits.request import Prepared, Result
from ..errors import PicturesError, UserError
from ..files.images import to_images
from ..models.base import Backbone
from ..models.memory import describe, is_out_of_memory
from ..models.precision import Precision, lower
from .base import Editor, Observers

log = logging.getLogger("sdist")


class Walked(NamedTuple):
    """Edited latents, and for each image the mask (1, h, w) in 0..1 that its edit kept to, where it has one."""

    latents: Latents
    masks: Sequence[Tensor | None]


class Denoising(Editor):
    """A frozen dataclass whose `walk` makes the edited latents of some images."""

    queues: ClassVar[bool] = True
    ignores: ClassVar[frozenset[str]] = frozenset({"compile", "checkpoint", "scale", "log"})

    @abstractmethod
    def walk(self, model: Backbone, batch: Sequence[Prepared]) -> Latents:
        """The edited latents of images of one size; each is what it would be alone, up to float rounding."""

    def walk_masked(self, model: Backbone, batch: Sequence[Prepared]) -> Walked:
        """The same with masks, for editors that have some."""
        return Walked(self.walk(model, batch), [None] * len(batch))

    def adapt(self, model: Backbone, precision: Precision) -> None:
        lower(model, precision, None)

    def parallel(self, model: Backbone, images: int, size: tuple[int, int]) -> int:
        return default_parallel(model.device, images, size, filtered=False)

    def edit(self, model: Backbone, batch: Sequence[Prepared], run: Observers) -> list[Result]:
        width, height = batch[0].image.size
        at_once = run.parallel or self.parallel(model, len(batch), (height // model.factor, width // model.factor))
        results, failures, done = list[Result](), dict[int, str](), 0
        while done < len(batch):
            some, start = batch[done : done + at_once], time.perf_counter()
            try:
                with torch.no_grad():
                    latents, masks = self.walk_masked(model, some)
            except RuntimeError as error:
                at_once = _fewer(error, len(some), model)
                continue
            seconds = (time.perf_counter() - start) / len(some)
            for index, prepared in enumerate(some):
                z = latents[index : index + 1]
                if not z.isfinite().all():
                    failures[done + index] = f"{prepared.request.image.name}: the edited latents are not finite"
                    continue
                results.append(_result(model, prepared, z, masks[index], len(some), seconds))
                run.deliver(results[-1])
            done += len(some)
        if failures:
            raise PicturesError(failures)
        return results


def _fewer(error: RuntimeError, images: int, model: Backbone) -> int:
    """How many images to go on with when so many do not fit in memory. Raises UserError if it was one, and any other error."""
    if not is_out_of_memory(error):
        raise error
    reason = describe(error, model.device)
    if images == 1:
        raise UserError(f"one image of this size does not fit in memory: {reason}") from error
    log.warning("%d images at once do not fit in memory, going on with %d: %s", images, images // 2, reason)
    return images // 2


def _result(model: Backbone, prepared: Prepared, z: Latents, mask: Tensor | None, parallel: int, seconds: float) -> Result:
    start = time.perf_counter()
    (image,) = to_images(model.decode(z))
    timings = {"edit": round(seconds, 3), "decode": round(time.perf_counter() - start, 3)}
    return Result(prepared, image, mask, (), parallel, timings)
