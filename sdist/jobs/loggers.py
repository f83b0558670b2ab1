"""--log tensorboard and wandb: the distiller feeds them with the values of a queue's rounds, a callback with images."""

import logging
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from ..config.settings import LogSettings
from ..distillation.callbacks import Observer
from ..distillation.distiller import ScoreDistiller, last_masks
from ..errors import NotFiniteError, UserError
from ..files.images import mask_image, panel, to_images
from ..files.names import numbered
from ..files.storage import names as listed
from ..models.base import Backbone
from ..models.memory import AllocationError
from .wandb_account import INSTEAD

log = logging.getLogger("sdist")


LONGEST = 120  # bytes of a run's name, to which loggers add their own
SHOWN = 8  # images of a queue that are logged


class ImageLogger(Observer):
    """Sends images every so many steps to the trainer's logger, at the step at which the values of the round are logged too."""

    def __init__(self, backbone: Backbone, every: int) -> None:
        self._backbone, self._every, self._logged_step = backbone, every, -1

    def on_round(self, distiller: ScoreDistiller) -> None:
        logger, step = distiller.trainer.logger, distiller.steps_made
        if logger is not None and step % self._every == 0 and step != self._logged_step:
            self._logged_step = step
            try:
                log_image(logger, "edit", panel(self._images(distiller), gap=2), step)
            except (AllocationError, NotFiniteError) as error:
                log.warning("no picture of step %d in the log: %s", step, error)

    def _images(self, distiller: ScoreDistiller) -> list[Image.Image]:
        images = to_images(self._backbone.decode(distiller.latents[:SHOWN]))
        masks = last_masks(distiller)
        return [*images, *(mask_image(mask, images[0].size) for mask in masks[:SHOWN])] if masks is not None else images


def run_name(names: Sequence[str]) -> str:
    """Of a queue, by the names of its results."""
    return names[0] if len(names) == 1 else f"{names[0]}-{names[-1]}"


def make_logger(kind: str, folder: Path, settings: LogSettings, name: str) -> Logger:
    """The Lightning logger of that kind, with a new run under `folder`."""
    name = _short(name)
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "tensorboard":
        own = numbered(name, map(str.casefold, listed(folder / kind)))
        return TensorBoardLogger(folder, name=kind, version=own, default_hp_metric=False)
    return _wandb_logger(folder, settings, name)


def _wandb_logger(folder: Path, settings: LogSettings, name: str) -> Logger:
    """With its run begun. Raises UserError if wandb refuses that."""
    logger = WandbLogger(
        name=name, project=settings.project, group=settings.group or None, offline=settings.offline, save_dir=folder
    )
    try:
        _ = logger.experiment
    except Exception as error:  # of many classes
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--log wandb: no run can begin ({reason}); {INSTEAD}") from None
    return logger


def _short(name: str) -> str:
    """The name of a run as a folder can have it; what is cut is told apart by a digest."""
    if len(name.encode(errors="replace")) <= LONGEST:
        return name
    return f"{name.encode()[: LONGEST - 9].decode(errors='ignore')}-{sha256(name.encode()).hexdigest()[:8]}"


def finish(logger: Logger) -> None:
    """Writes what the logger still holds; the next batch starts a run of its own."""
    logger.finalize("success")
    if isinstance(logger, WandbLogger):
        logger.experiment.finish()


def log_image(logger: Logger, name: str, image: Image.Image, step: int) -> None:
    """An image in the logger's own way."""
    if isinstance(logger, WandbLogger):
        logger.log_image(name, [image], step=step)
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, np.asarray(image), step, dataformats="HWC")
