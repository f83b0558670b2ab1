"""Edits that are watched while they are made: those of one press in a thread, which goes on whether somebody looks or not."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from threading import Event
from time import monotonic
from typing import Any

from PIL import Image, ImageOps

from ..api import make, without_folders
from ..config.settings import Settings
from ..distillation.callbacks import Snapshot, StepObserver, StopCondition
from ..editors.base import Observers
from ..editors.loading import model_cache
from ..edits.composition import composed
from ..edits.request import Request, Result
from ..errors import UserError
from ..files.images import load_image
from ..models.base import Backbone
from .limits import Limits, reason
from .timeline import Timeline

SMALL = 256  # pixels of a thumbnail's long side


class BusyError(UserError):
    """A picture cannot be decoded while an edit is being made."""

    def __init__(self) -> None:
        super().__init__("this picture is shown when no edit is being made: the networks of its model take turns on the GPU")


@dataclass
class Run:
    """One edit: what was asked, and what is there so far."""

    name: str  # of the method
    settings: Settings
    request: Request
    timeline: Timeline = field(default_factory=Timeline)
    result: Result | None = None  # when it has ended
    remark: str = ""  # on what was asked
    began: float = 0.0  # on the monotonic clock
    _before: Image.Image | None = None

    @contextmanager
    def _free_model(self) -> Iterator[Backbone]:
        """The model, for a look. Raises BusyError where its networks take turns and an edit is being made, instead of waiting."""
        model = model_cache.in_memory(self.settings) or model_cache.get(self.settings).model
        if not model.residence.takes_turns:
            yield model
        elif model.alone.acquire(blocking=False):
            try:
                yield model
            finally:
                model.alone.release()
        else:
            raise BusyError

    def picture(self, step: int, strength: float = 1.0) -> Image.Image:
        """The picture at a step that was kept, see Timeline; after the end put back into its source, if that is wanted.

        The result is there already, unless `thin` made it small. Raises BusyError for another while no look can be taken.
        """
        result = self.result
        if result is not None and result.image is not self.thumbnail and step >= self.timeline.made and strength == 1:
            return result.image
        with self._free_model() as model:
            image = self.timeline.picture(model, step, strength)
        if result is None:
            return image
        return composed(replace(result, image=image, mask=self.timeline.at(step).mask), self.settings).image

    def branches(self, step: int) -> dict[str, Image.Image]:
        """Those of a method of two branches, see Timeline; none while no look can be taken."""
        try:
            with self._free_model() as model:
                return self.timeline.branches(model, step)
        except BusyError:
            return {}

    def before(self, size: tuple[int, int]) -> Image.Image:
        """The source picture at a size, of the edit as a rule."""
        if self._before is None or self._before.size != size:
            self._before = ImageOps.fit(load_image(self.request.image), size, Image.Resampling.LANCZOS)
        return self._before

    @cached_property
    def thumbnail(self) -> Image.Image:
        """The result, small; asked for when there is one."""
        assert self.result is not None
        small = self.result.image.copy()
        small.thumbnail((SMALL, SMALL))
        return small

    def thin(self) -> None:
        """Leaves the first picture, the last and a small one of the result."""
        self.timeline.thin()
        if self.result is not None:
            self.result = replace(self.result, image=self.thumbnail)

    @property
    def wish(self) -> str:
        """What was asked for."""
        return self.request.instruction or self.request.target

    @property
    def label(self) -> str:
        return f"{self.name}, seed {self.request.seed}"

    @property
    def card(self) -> dict[str, Any]:
        """The run card, with files by name alone; {} before the end."""
        return without_folders(self.result.card, ("image", "mask")) if self.result else {}


class Work:
    """The edits of one press, made one after the other by calling it; one that fails leaves the others to be made.

    `begins` gets each run when its source is encoded. `stop` ends the edit at the next round, and its result is what there is
    then; so does `unwanted`, which is asked after each round.
    """

    def __init__(
        self, runs: Sequence[Run], limits: Limits, begins: Callable[[Run], None], unwanted: Callable[[], bool] = lambda: False
    ) -> None:
        self.runs, self.stop, self.ended = runs, Event(), False
        self.run: Run | None = None  # that is made, or was the last
        self.loading = False  # the model is being loaded for it
        self.news = 0  # grows whenever something happens
        self.failed: list[tuple[Run, Exception]] = []
        self._limits, self._begins, self._unwanted = limits, begins, unwanted

    def __call__(self) -> None:
        for run in self.runs:
            if not self._is_over():
                try:
                    self._make(run)
                except Exception as error:
                    self.failed.append((run, error))
        self.ended = True
        self.news += 1

    @property
    def problem(self) -> str:
        """Why edits were not made, each reason once; empty if none failed."""
        labels: dict[str, list[str]] = {}
        for run, error in self.failed:
            labels.setdefault(reason(error), []).append(run.label)
        if len(self.runs) == 1 or list(map(len, labels.values())) == [len(self.runs)]:
            return "; ".join(labels)
        return "; ".join(f"{' and '.join(which)}: {why}" for why, which in labels.items())

    def _is_over(self) -> bool:
        return self.stop.is_set() or self._unwanted()

    def _make(self, run: Run) -> None:
        self.run, run.began, self.loading = run, monotonic(), True
        try:
            method = model_cache.get(run.settings)
        finally:
            self.loading = False
        self._limits.check_size(*method.check(run.request))
        run.remark = method.unknown_words(run.request)
        run.began = monotonic()
        watching, stopping = StepObserver(partial(self._saw, run)), StopCondition(lambda distiller: self._is_over())
        run.result = make(run.settings, run.request, Observers([watching, stopping]))
        self.news += 1

    def _saw(self, run: Run, snapshot: Snapshot) -> None:
        run.timeline.add(snapshot)
        if snapshot.step == 0:
            self._begins(run)
        self.news += 1
