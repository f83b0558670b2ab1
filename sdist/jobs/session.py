"""What edit and run share: one method with its model and its output folder, and a batch from requests to files."""

import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from ..config.settings import Settings
from ..distillation.callbacks import Observer, ProgressBar, StopCondition
from ..distillation.progress import Bar
from ..editors.base import Observers
from ..editors.loading import LoadedMethod, ModelCache, model_cache
from ..edits.outputs import forget_error, output_files, stopped_names, writable_folder, write_result
from ..edits.request import Prepared, Request, Result
from ..edits.run_card import plain_settings
from ..edits.stored_results import StoredResult, is_stopped, read_made
from ..errors import UserError
from ..files.names import numbered
from ..files.storage import names, remove
from ..models.process_state import process_state
from .behind import behind
from .claims import Claims
from .csv_log import CsvLog
from .events import Events
from .interrupts import Interruption, interrupts
from .loggers import ImageLogger, finish, make_logger, run_name
from .options import SessionOptions
from .wandb_account import check_account

log = logging.getLogger("sdist")

WAITING = 4  # results at most that are made and not yet written


def refuse_foreign(settings: Settings, method: str, **options: Any) -> None:
    """Raises UserError for options that need an editor whose steps can be logged; those that are None or empty are not set."""
    foreign = [f"--{name}" for name, value in options.items() if value]
    if foreign and not settings.editor.stepwise:
        raise UserError(
            f"{', '.join(foreign)}: of editors whose steps can be logged and recorded, which those of {method} cannot"
        )


def _problem_of_writing(folder: Path) -> UserError | None:
    """Why nothing can be written where something is already. Raises it where nothing is."""
    try:
        writable_folder(folder)
    except UserError as error:
        if isinstance(folder, Path) and folder.is_dir() and names(folder):
            return error
        raise
    return None


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
        self.folder = options.output
        self._unwritable = None if options.dry_run else _problem_of_writing(options.output)
        self.events: Events | None = Events() if options.json else None
        self.name, self._log, self.overwrite = options.name or Path(options.method).stem, options.log, options.overwrite
        self._parallel = options.parallel
        self.made = 0  # images written
        self.ended = set[str]()  # names of images that this process has written, or left to another
        self.claims = Claims(self.folder)
        self.elsewhere = 0  # images that another process is making, or has made meanwhile
        self.unfinished = 0  # images of queues that were not written, for whatever reason
        self.stopped: list[tuple[Path, int]] = []  # images that were written before their last step, and after how many
        self._partial: dict[str, set[str]] = {}  # names of stopped images that were in the folder when somebody looked, by name
        self._first = True  # no queue has been edited
        self._models = models or model_cache
        self._last: Prepared | None = None

    @property
    def method(self) -> LoadedMethod:
        return self._models.get(self.settings)

    def load(self) -> None:
        """Loads the model now, so that one that cannot be had is one error, not one per image."""
        _ = self.method

    def check_writable(self) -> None:
        """Raises UserError if nothing can be written into the folder; a call that finds all there does not ask."""
        if self._unwritable is not None:
            raise self._unwritable

    def look(self) -> frozenset[str]:
        """What is in the folder now, by one listing."""
        listed = frozenset(names(self.folder))
        self._partial = stopped_names(listed)
        return listed

    def other_settings(self, made: StoredResult) -> list[str]:
        """Which settings of this session a result was not made with. Raises UserError as `StoredResult.other_settings` does."""
        return made.other_settings(self._plain, lambda: self.method.model.fingerprint)

    def is_whole(self, made: StoredResult) -> bool:
        """Whether a result can stay; the log says if not."""
        if not made.is_whole:
            log.info("%s does not count: it is empty, cut short, or older than the card beside it", made.image)
        return made.is_whole

    def is_made_meanwhile(self, name: str, card: str | None, there: Container[str]) -> bool:
        """Whether the image of that name is there as a whole, with another card than the one that was there at first."""
        made = read_made(self.folder, [name], there)
        return bool(made) and made[0].is_whole and made[0].text != card

    def admit(self, name: str, card: str | None) -> bool:
        """Whether this process is to make an image; not if another one is at it, or has made it since."""
        is_mine = self.claims.take(name)
        if is_mine:
            files = output_files(self.folder, name)
            is_mine = not self.is_made_meanwhile(name, card, {files["image"].name, files["card"].name})
        if not is_mine:
            self.claims.release(name)
            self.elsewhere += name not in self.ended
            self.ended.add(name)
        return is_mine

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
        names: Sequence[str],
        label: str,
        parallel: int | None = None,
        bar: Bar | None = None,
        admit: Callable[[int], bool] = lambda index: True,
    ) -> None:
        """Edits the batch, and writes each result while others are made; the bar counts steps, or images where there are none.

        `names` are those of the results. An interrupt ends it after the present step, with what there is of each image.
        """
        name_of = {id(prepared): name for prepared, name in zip(batch, names, strict=True)}
        before, staggered = self.made + self.elsewhere, self._first
        self._first = False

        def write(result: Result) -> None:
            self._write(name_of[id(result.prepared)], result)
            if bar is not None and self.settings.editor.progress[1] == "image":
                bar.update()

        stepping = interrupts.stepping() if self.settings.editor.stepwise else nullcontext()
        with process_state(), self._logged(names) as (logger, images), stepping, behind(WAITING) as later:  # loggers write, too
            callbacks = [ProgressBar(label, bar), StopCondition(lambda distiller: interrupts.wanted), *images]
            observers = Observers(
                callbacks, logger, partial(later, write), False, parallel or self._parallel, admit, names, staggered
            )
            self.method.edit(batch, observers)
        self.remove_stopped([name for name in names if name in self.ended])
        self.unfinished += len(batch) - (self.made + self.elsewhere - before)

    @contextmanager
    def _logged(self, names: Sequence[str]) -> Iterator[tuple[Logger | None, list[Observer]]]:
        """What logs the values of a queue, and what logs its images."""
        folder, every = self.folder / "logs", self.settings.log.images_every
        if self._log == "none":
            yield None, []
        elif self._log == "csv":
            with closing(CsvLog(folder / "csv", self.method.model, every)) as table:
                yield None, [table]
        else:
            logger = make_logger(self._log, folder, self.settings.log, f"{self.name}-{run_name(names)}")
            logger.log_hyperparams(self.settings.plain())
            try:
                yield logger, [ImageLogger(self.method.model, every)]
            finally:
                finish(logger)

    def _write(self, name: str, result: Result) -> None:
        """Writes an image, under a name that says so if it was stopped before its last step; what was stopped earlier goes."""
        made, is_whole = len(result.attempts), result.is_whole
        if not (is_whole or made):
            return
        card = result.card
        before = set() if is_whole else {one for one in self._partial.get(name, ()) if is_stopped(self.folder, one, card)}
        own = name if is_whole else self._stopped_name(name, made, before)
        files = output_files(self.folder, own)
        write_result(files, result, card if is_whole else card | {"stopped_at": made})
        self._remove(before - {own})
        if is_whole:
            forget_error(self.folder, name)
            self.made += 1
            self.ended.add(name)
            self.claims.release(name)
            self.emit("made", files["image"], result.prepared.request, seconds=round(sum(result.timings.values()), 3))
        else:
            self.stopped.append((files["image"], made))
            self.emit("stopped", files["image"], result.prepared.request, step=made)

    def remove_stopped(self, made: Sequence[str]) -> None:
        """Removes what was kept of images when they were stopped, by whichever process, as far as they are there by now."""
        listed = self.look() if made else frozenset()
        stopped = [name for name in made if name in self._partial]
        for one in read_made(self.folder, stopped, listed):
            self._remove(partial for partial in self._partial[one.name] if is_stopped(self.folder, partial, one.card))

    def _remove(self, made: Iterable[str]) -> None:
        """Removes results by their names."""
        for name in made:
            with suppress(OSError):  # what stays, as in a folder that is read-only, does no harm
                for file in output_files(self.folder, name).values():
                    remove(file)

    def _stopped_name(self, name: str, step: int, own: set[str]) -> str:
        """NAME_stepN, or NAME_2_stepN, ... where that is taken by something else than `own`."""
        taken = [other.casefold() for other, stopped in self._partial.items() if f"{other}_step{step}" in stopped.difference(own)]
        return f"{numbered(name, taken)}_step{step}"

    def event(self, status: str, image: Path, request: Request, **more: Any) -> dict[str, Any]:
        """What --json says of an image."""
        asked = {"source": request.source, "target": request.target, "seed": request.seed}
        return {"status": status, "image": str(image), "source_image": str(request.image.resolve()), **asked, **more}

    def emit(self, status: str, image: Path, request: Request, **more: Any) -> None:
        """Emits an event for an image, if events were asked for (--json)."""
        if self.events is not None:
            self.events.emit(self.event(status, image, request, **more))

    def emit_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Emits what `Plan.rows` has of rows without an image to make."""
        if self.events is not None:
            for row in rows:
                self.events.emit(row)

    def end_if_interrupted(self, done: bool) -> None:
        """Raises Interruption, with what was kept, if a signal asked for the end and not all is done."""
        if not interrupts.wanted or (done and not self.unfinished):
            return
        if len(self.stopped) == 1:
            ((path, step),) = self.stopped
            raise Interruption(f"stopped at step {step} of {self.settings.editor.steps}; saved as {path}")
        if self.stopped:
            saved = ", ".join(f"{path} (step {step})" for path, step in self.stopped)
            raise Interruption(f"stopped; {len(self.stopped)} images are saved as they were: {saved}")
        raise Interruption("stopped before a step of the images being made was finished: nothing of them was saved")
