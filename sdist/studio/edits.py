"""Edits that are watched while they are made: each in a worker thread, its steps handed over through a queue."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Queue
from threading import Event, Thread
from time import monotonic
from typing import Any

from PIL import Image, ImageOps

from ..api import make, without_folders
from ..config.settings import Settings
from ..distillation.callbacks import Snapshot, Stopping, Watching
from ..editors.base import Observers
from ..editors.loading import model_cache
from ..edits.request import Request, Result
from ..files.images import load_image
from .limits import Limits
from .timeline import Timeline

Message = Snapshot | Result | Exception
PAUSE = 0.3  # seconds between looks, at least
SHARE = 3  # as many times as a look takes is the edit left alone


@dataclass
class Run:
    """One edit: what was asked, and what is there so far."""

    name: str  # of the method
    settings: Settings
    request: Request
    timeline: Timeline = field(default_factory=Timeline)
    result: Result | None = None  # when it has ended
    _before: Image.Image | None = None

    def picture(self, step: int, strength: float = 1.0) -> Image.Image:
        """The picture at a step that was kept, see Timeline."""
        return self.timeline.picture(model_cache.get(self.settings).model, step, strength)

    def before(self, size: tuple[int, int]) -> Image.Image:
        """The source picture at the size of the edit."""
        if self._before is None:
            self._before = ImageOps.fit(load_image(self.request.image), size, Image.Resampling.LANCZOS)
        return self._before

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


def follow(run: Run, stop: Event, limits: Limits) -> Iterator[None]:
    """Makes the edit, and yields whenever there is news; the run has then grown by all that came meanwhile.

    The more time the reader takes for a look, the fewer looks there are. `stop` ends the edit at the next round, and the result
    is what there is; so does closing this generator. Raises what the edit raises.
    """
    messages: Queue[Message] = Queue()
    Thread(target=_work, args=(run, stop, limits, messages), daemon=True).start()
    pause = 0.0
    try:
        while run.result is None:
            for message in _news(messages, pause):
                if isinstance(message, Exception):
                    raise message
                if isinstance(message, Result):
                    run.result = message
                else:
                    run.timeline.add(message)
            looked = monotonic()
            yield
            pause = max(PAUSE, SHARE * (monotonic() - looked))
    finally:
        if run.result is None:
            stop.set()


def _work(run: Run, stop: Event, limits: Limits, messages: "Queue[Message]") -> None:
    callbacks = [Watching(messages.put), Stopping(lambda distiller: stop.is_set())]
    try:
        limits.check_size(*model_cache.get(run.settings).check(run.request))
        messages.put(make(run.settings, run.request, Observers(callbacks)))
    except Exception as error:
        messages.put(error)


def _news(messages: "Queue[Message]", pause: float) -> Iterator[Message]:
    """The first message to come and all that follow within the pause; the end of the edit ends it too."""
    until = monotonic() + pause
    message = messages.get()
    yield message
    with suppress(Empty):
        while isinstance(message, Snapshot):
            message = messages.get(timeout=max(0.0, until - monotonic()))
            yield message
