"""What edit and run share: settings and model from the arguments, and a batch from jobs to files."""

import argparse
import json
from collections.abc import Container, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..config.build import load_settings, resolve
from ..config.settings import Settings
from ..distillation.callbacks import ProgressBar
from ..distillation.trainer import default_lanes
from ..editors.loading import LoadedModels
from ..editors.score_distillation import edit_batch, prepare
from ..edits.outputs import forget_error, is_interrupted, output_files, remove_parts, writable_folder, write_result
from ..edits.request import Prepared, Request, Result
from ..edits.run_card import describe, make_card, plain_settings
from ..errors import UserError
from ..extras import need
from ..files.storage import names, need_local, read
from ..models.backbone import Backbone
from .loggers import RunLogger, finish, make_logger

GIVEN = ("model", "device", "precision", "size", "steps", "compile")  # settings that are arguments of their own
SAME = ("log", "device", "compile", "checkpoint")  # settings that do not make another picture
DISTILLING = {"batch": None, "log": "none", "words": (), "mask": None, "record": None}  # arguments a baseline has no use for


def settings_of(args: argparse.Namespace, method: str) -> Settings:
    """The method's settings with what the arguments say."""
    given = {key: value for key in GIVEN if (value := getattr(args, key)) is not None}
    return load_settings(method, args.overrides, **given)


def _check_arguments(args: argparse.Namespace, settings: Settings) -> None:
    if args.log != "none":
        need_local(args.output, f"--log {args.log}")
    if args.log == "tensorboard":
        need(f"{args.command} --log tensorboard", "tensorboard", extra="tensorboard")
    if settings.baseline is None:
        return
    foreign = [f"--{name}" for name, default in DISTILLING.items() if getattr(args, name, default) != default]
    if foreign:
        raise UserError(f"{', '.join(foreign)}: of score distillation, and {args.method} is a baseline")


@lru_cache(maxsize=8)
def _recorded_settings(text: str) -> dict[str, Any]:
    """The settings of a run card, with defaults for those that came later; the cards of a run have the same."""
    return plain_settings(resolve(json.loads(text), "run card"))


class Session:
    """One method's settings, model and output folder; `name` is that of its runs in a log. It travels without its model."""

    def __init__(self, args: argparse.Namespace, models: LoadedModels | None = None, name: str = "") -> None:
        if args.batch is not None and args.batch < 1:
            raise UserError(f"--batch must be at least 1, got {args.batch}")
        self.settings: Settings = settings_of(args, args.method)
        self._plain = plain_settings(self.settings)
        _check_arguments(args, self.settings)
        self.folder = writable_folder(args.output)
        self.name, self._log, self.overwrite = name or Path(args.method).stem, args.log, args.overwrite
        self._lanes: int | None = args.batch
        self.made = 0  # pictures written
        self._models = models or LoadedModels(kept=1)

    @property
    def instructed(self) -> bool:
        """Whether the method reads an instruction."""
        return self.settings.baseline is not None and self.settings.baseline.instructed

    @property
    def backbone(self) -> Backbone:
        return self._models(self.settings)

    def load(self) -> None:
        """Loads the model now, so that one that cannot be had is one error, not one a picture."""
        _ = self.backbone

    def output_files(self, pictures: Sequence[str]) -> list[dict[str, Path]]:
        """Where results go; UserError if one exists and may not be replaced."""
        files, there = [output_files(self.folder, name) for name in pictures], names(self.folder)
        existing = [path for own in files for path in own.values() if path.name in there]
        if existing and not self.overwrite:
            raise UserError(f"{existing[0]} exists; --overwrite replaces it, --output names another folder")
        remove_parts(self.folder, set(pictures))
        return files

    def is_made(self, name: str, request: Request, there: Container[str]) -> bool:
        """Whether the picture is there, by the names of what is; UserError if made with other settings or from something else."""
        files = output_files(self.folder, name)
        if files["image"].name not in there:
            return False
        try:
            text = read(files["card"]).decode()
            card = json.loads(text)
            recorded = {"settings": _recorded_settings(json.dumps(card["settings"])), "job": card["job"]}
            recorded["job"].pop("tokens")
        except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
            raise UserError(f"{files['image']} has no run card beside it; --overwrite replaces it") from None
        wanted = {"settings": self._plain, "job": describe(request)}
        for part, given in wanted.items():
            differ = [key for key in given if key not in SAME and given[key] != recorded[part].get(key)]
            if differ:
                raise UserError(
                    f"{files['image']} was made with other {', '.join(differ)}; --overwrite replaces it, --output names "
                    "another folder"
                )
        return not is_interrupted(files, text)

    def prepare(self, request: Request) -> Prepared:
        return prepare(self.backbone, self.settings, request)

    def lanes(self, pictures: int, size: tuple[int, int]) -> int:
        """How many draws at once for so many pictures of a size; a part of them is edited as all of them are."""
        sides = (size[1] // self.backbone.factor, size[0] // self.backbone.factor)
        return self._lanes or default_lanes(self.backbone.device, pictures, sides, self.settings.filter is not None)

    def edit(
        self,
        batch: Sequence[Prepared],
        files: Sequence[dict[str, Path]],
        label: str,
        lanes: int | None = None,
        bar: tqdm | None = None,
    ) -> None:
        """Edits the batch and writes each result when it is there; steps, or pictures of a baseline, are told to the bar."""
        name, where = f"{self.name}-{label}", {id(p): own for p, own in zip(batch, files, strict=True)}
        logger = make_logger(self._log, self.folder / "logs", self.settings.log, name)
        callbacks = [ProgressBar(label, bar)]
        if logger is not None:
            logger.log_hyperparams(self.settings.plain())
            callbacks.append(RunLogger(self.backbone, self.settings.log.images_every))

        def write(result: Result) -> None:
            own = where[id(result.prepared)]
            write_result(own, result, make_card(self.backbone, self.settings, result))
            forget_error(self.folder, own["image"].stem)
            self.made += 1
            if bar is not None and self.settings.baseline is not None:
                bar.update()

        try:
            edit_batch(self.backbone, self.settings, batch, callbacks, logger, lanes or self._lanes, write)
        finally:
            finish(logger)
