"""What runs in an actor of a Ray cluster: a session with a model of its own, which edits what it is sent."""

import logging
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ..plan import Task
from ..session import Session
from .queues import Sizes, edit_queue


class SentTask(NamedTuple):
    """A task, and the bytes of its image, whose folder the actor need not see."""

    task: Task
    image: bytes


class Outcome(NamedTuple):
    """What became of the images of a call; those that did not fail are made."""

    made: int
    failed: dict[str, str]  # reasons by name
    warnings: list[str]


class Warnings(logging.Handler):
    """Keeps what is to be shown on the terminal of the driver."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


class Worker:
    """One actor. The cards that it writes name the images of the driver."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def load(self) -> None:
        self._session.load()

    def edit(self, sent: list[SentTask], sizes: Sizes) -> Outcome:
        """Makes the images and writes them; what ends a run, such as a full disk, is raised."""
        failed, before, warnings = dict[str, str](), self._session.made, Warnings()

        def fail(task: Task, reason: str) -> None:
            failed[task.name] = reason.replace(str(task.request.copy), str(task.request.image))

        logging.getLogger("sdist").addHandler(warnings)
        try:
            with TemporaryDirectory(prefix="sdist-") as folder:
                edit_queue(self._session, [_with_copy(one, Path(folder)) for one in sent], sizes, None, fail)
        finally:
            logging.getLogger("sdist").removeHandler(warnings)
        return Outcome(self._session.made - before, failed, warnings.messages)


def _with_copy(sent: SentTask, folder: Path) -> Task:
    copy = folder / sent.task.name / sent.task.request.image.name
    copy.parent.mkdir()
    copy.write_bytes(sent.image)
    return replace(sent.task, request=replace(sent.task.request, copy=copy))
