"""Runs a distiller under a silent Lightning trainer; how many draws at once suit a device."""

import inspect
import signal
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger

from ..models.process_state import process_state
from .distiller import ScoreDistiller

MIN_PARALLEL = 2  # draws of a round at least on a CPU, unless only one is tried at a time; see Schedule


def default_parallel(device: torch.device, images: int, size: tuple[int, int], filtered: bool) -> int:
    """How many draws at once suit a device, by measurement (docs/performance.md).

    A GPU gains until about 32 rows of the network, and up to 4 draws of one image in less time than one after the other. A
    CPU gains as long as a row does not keep it busy, and by images only.
    """
    if device.type == "cuda":
        return min(16, images * (4 if filtered else 1))
    at_most = 8 * 32 * 32 // (size[0] * size[1]) if device.type == "cpu" else 1
    return max(1, min(16, images, at_most))


def optimize(distiller: ScoreDistiller, device: torch.device, callbacks: Sequence[Callback], logger: Logger | None) -> None:
    """Runs the distiller to its end with a silent Lightning trainer that writes nothing by itself."""
    accelerator = {"cuda": "gpu"}.get(device.type, device.type)
    before = signal.getsignal(signal.SIGINT)
    with process_state(), warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        trainer = _trainer(
            accelerator=accelerator,
            devices=[device.index] if device.type == "cuda" and device.index is not None else 1,
            max_epochs=1,
            callbacks=list(callbacks),
            logger=logger or False,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            default_root_dir=folder,
            plugins=[LightningEnvironment()],  # one process of its own, also where torchrun, SLURM or --devices started several
        )
        cast(Any, trainer)._signal_connector.register_signal_handlers = lambda: None  # signals belong to the program
        try:
            trainer.fit(distiller)
        except SystemExit as error:  # how Lightning reports an interrupt, after it has told SIGINT to be ignored
            if not isinstance(error.__context__, KeyboardInterrupt):
                raise
            signal.signal(signal.SIGINT, before)
            raise error.__context__ from None


def _trainer(**arguments: Any) -> Trainer:
    """A trainer for which every argument is given: one that is not would be taken from the variable PL_TRAINER_ARGUMENT."""
    defaults = {name: p.default for name, p in inspect.signature(Trainer).parameters.items()}
    return Trainer(**{**defaults, **arguments})
