"""What runs in an actor of a Ray cluster: a session with a model of its own, which edits what it is sent."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

from ...edits.request import copy_of
from ..plan import Task
from ..session import Session
from .queues import Sizes, edit_queue


class TaskWithFiles(NamedTuple):
    """A task, and the bytes of the files of its request, whose folders the actor need not see."""

    task: Task
    files: tuple[bytes, ...]


class Outcome(NamedTuple):
    """What became of the images of a call; those that did not fail, nor were left, are made."""

    made: int
    elsewhere: int  # left to another process
    failed: dict[str, str]  # reasons by name
    warnings: list[str]
    events: list[Mapping[str, Any]]  # for --json


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

    def edit(self, sent: list[TaskWithFiles], sizes: Sizes) -> Outcome:
        """Makes the images and writes them; what ends a run, such as a full disk, is raised."""
        failed, warnings = dict[str, str](), Warnings()
        made, elsewhere, events = self._session.made, self._session.elsewhere, self._session.events
        if events is not None:
            events.kept = []

        def fail(task: Task, reason: str) -> None:
            for path in task.request.inputs:
                reason = reason.replace(str(copy_of(cast(Path, task.request.copies), path)), str(path))
            failed[task.name] = reason

        logging.getLogger("sdist").addHandler(warnings)
        try:
            with TemporaryDirectory(prefix="sdist-") as folder:
                edit_queue(self._session, [_with_copies(one, Path(folder)) for one in sent], sizes, None, fail)
        finally:
            logging.getLogger("sdist").removeHandler(warnings)
        return Outcome(
            self._session.made - made,
            self._session.elsewhere - elsewhere,
            failed,
            warnings.messages,
            (events and events.kept) or [],
        )


def _with_copies(sent: TaskWithFiles, folder: Path) -> Task:
    """The task with its files in a folder of this machine."""
    own = folder / sent.task.name
    for path, content in zip(sent.task.request.inputs, sent.files, strict=True):
        copy = copy_of(own, path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    return replace(sent.task, request=replace(sent.task.request, copies=own))
