"""What edit and run share: one method with its model and its output folder, and a batch from requests to files."""

import json
from collections.abc import Container, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback
from tqdm.auto import tqdm

from ..config.build import resolve
from ..config.settings import Settings
from ..distillation.callbacks import ProgressBar
from ..editors.base import Observers
from ..editors.loading import LoadedMethod, ModelCache, model_cache
from ..edits.outputs import check_name, forget_error, is_interrupted, output_files, remove_parts, writable_folder, write_result
from ..edits.request import Prepared, Request, Result
from ..edits.run_card import describe, plain_settings
from ..errors import UserError
from ..files.storage import names, read
from ..models.own_state import own_state
from ..plugins import check_recorded
from .loggers import RunLogger, finish, make_logger
from .options import SessionOptions
from .wandb_account import check_account

SAME = ("log", "device", "compile", "checkpoint")  # settings that do not make another image
OUTSIDE = {  # of a card, what is no part of a result's identity
    "settings": (*SAME, "seed"),  # the seed is that of the request
    "job": ("image", "mask"),  # where files lay; what they held is told by their sha256
}


def refuse_foreign(settings: Settings, method: str, **options: Any) -> None:
    """Raises UserError for options that need an editor whose steps can be watched; those that are None or empty are not set."""
    foreign = [f"--{name}" for name, value in options.items() if value]
    if foreign and not settings.editor.stepwise:
        raise UserError(f"{', '.join(foreign)}: of editors whose steps can be watched, which those of {method} cannot")


@lru_cache(maxsize=8)
def _recorded_settings(text: str) -> dict[str, Any]:
    """The settings of a run card, with defaults for those that came later; the cards of a run have the same."""
    return plain_settings(resolve(json.loads(text), "run card"))


def _recorded(card: dict[str, Any], image: Path) -> dict[str, dict[str, Any]]:
    """What a card says of settings and job, as a session would write it. Raises UserError for settings that are unknown here."""
    try:
        settings = _recorded_settings(json.dumps(card["settings"]))
    except UserError as error:
        raise UserError(f"{image}: {error}; --overwrite replaces it") from None
    return {"settings": settings, "job": {key: value for key, value in card["job"].items() if key != "tokens"}}


class Session:
    """One method's settings, model and output folder; `name` is that of its runs in a log. It travels without its model."""

    def __init__(self, options: SessionOptions, models: ModelCache | None = None) -> None:
        self.settings: Settings = options.settings
        self._plain = plain_settings(self.settings)
        refuse_foreign(self.settings, options.method, log=options.log != "none")
        if options.parallel and not self.settings.editor.queues:
            raise UserError(f"--parallel: {options.method} edits one image at a time")
        if options.log == "wandb":
            check_account(self.settings.log)
        self.folder = writable_folder(options.output)
        self.name, self._log, self.overwrite = options.name or Path(options.method).stem, options.log, options.overwrite
        self._parallel = options.parallel
        self.made = 0  # images written
        self.written = set[Path]()  # by this process
        self._models = models or model_cache
        self._last: Prepared | None = None

    @property
    def method(self) -> LoadedMethod:
        return self._models.get(self.settings)

    def load(self) -> None:
        """Loads the model now, so that one that cannot be had is one error, not one per image."""
        _ = self.method

    def output_files(self, images: Sequence[str]) -> list[dict[str, Path]]:
        """Where results of these names go. Raises UserError if one exists and may not be replaced."""
        for name in images:
            check_name(self.folder, name)
        files, there = [output_files(self.folder, name) for name in images], names(self.folder)
        existing = [path for paths in files for path in paths.values() if path.name in there]
        if existing and not self.overwrite:
            raise UserError(f"{existing[0]} exists; --overwrite replaces it, --output names another folder")
        remove_parts(self.folder, set(images))
        return files

    def is_made(self, name: str, request: Request, there: Container[str]) -> bool:
        """Whether the image is among the names that are there. Raises UserError if it is a result of something else."""
        files = output_files(self.folder, name)
        image = files["image"]
        if image.name not in there:
            return False
        try:
            text = read(files["card"]).decode()
            card = json.loads(text)
            differ = [Path(plugin).name for plugin in check_recorded(card.get("plugins", {}), str(image))]
            recorded = _recorded(card, image)
        except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{image} has no run card beside it; --overwrite replaces it") from None
        for part, wanted in {"settings": self._plain, "job": describe(request)}.items():
            differ += [key for key, value in wanted.items() if key not in OUTSIDE[part] and value != recorded[part].get(key)]
        if "model" in differ and card.get("model", {}).get("fingerprint") == self.method.model.fingerprint:
            differ.remove("model")  # the same weights, in another folder
        if differ:
            raise UserError(
                f"{image} was made with other {', '.join(differ)}; --overwrite replaces it, --output names another folder"
            )
        return not is_interrupted(files, text)

    def prepare(self, request: Request) -> Prepared:
        """The request with its image read; the seeds of one image, one after the other, have it read once."""
        last = self._last
        if last is None or replace(last.request, seed=request.seed) != request:
            last = self.method.prepare(request)
        self._last = replace(last, request=request)
        return self._last

    def parallel(self, images: int, size: tuple[int, int]) -> int:
        """How many draws at once for so many images of a size; a part of them is edited as all of them are."""
        return self._parallel or self.method.parallel(images, size)

    def edit(
        self,
        batch: Sequence[Prepared],
        files: Sequence[dict[str, Path]],
        label: str,
        parallel: int | None = None,
        bar: tqdm | None = None,
    ) -> None:
        """Edits the batch and writes each result when it is there; the bar counts steps, or images where the editor has none."""
        with own_state():  # loggers write in it, too
            self._edit(batch, files, label, parallel, bar)

    def _edit(
        self, batch: Sequence[Prepared], files: Sequence[dict[str, Path]], label: str, parallel: int | None, bar: tqdm | None
    ) -> None:
        paths_of = {id(prepared): paths for prepared, paths in zip(batch, files, strict=True)}
        logger = make_logger(self._log, self.folder / "logs", self.settings.log, f"{self.name}-{label}")
        callbacks: list[Callback] = [ProgressBar(label, bar)]
        if logger is not None:
            logger.log_hyperparams(self.settings.plain())
            callbacks.append(RunLogger(self.method.model, self.settings.log.images_every))

        def write(result: Result) -> None:
            paths = paths_of[id(result.prepared)]
            write_result(paths, result, self.method.card(result))
            forget_error(self.folder, paths["image"].stem)
            self.made += 1
            self.written.add(paths["image"])
            if bar is not None and self.settings.editor.progress[1] == "image":
                bar.update()

        try:
            self.method.edit(batch, Observers(callbacks, logger, write, parallel or self._parallel))
        finally:
            finish(logger)
