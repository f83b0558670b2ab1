"""Dispatches the images of a run to actors of a Ray cluster, and again where one has died."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import ray
from ray.actor import ActorHandle
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from ...distillation.progress import Bar
from ...edits.outputs import remove_parts
from ...errors import UserError
from ..plan import Task, missing_of
from ..session import Session
from .queues import Fail, Sizes
from .ray_actor import Outcome, TaskWithFiles

log = logging.getLogger("sdist")

MAX_CHUNKS = 2  # that an actor has, one of them in work
DEATHS = 3  # of actors in a row, at work on an image or before they are loaded, that end it


class Chunk(NamedTuple):
    """Images that an actor gets at once, and how many actors died at work on them."""

    tasks: list[Task]
    deaths: int = 0


class Driver:
    """Dispatches chunks to actors and collects their outcomes. A dead actor is replaced by one that `start_actor` returns.

    Ray's own restarts are not used: calls to a restarting actor are refused, and one of a lost machine may restart for ever.
    """

    def __init__(self, session: Session, sizes: Sizes, fail: Fail, bar: Bar, start_actor: Callable[[], ActorHandle]) -> None:
        self._session, self._sizes, self._fail, self._bar, self._start_actor = session, sizes, fail, bar, start_actor
        self._waiting = deque[Chunk]()
        self._calls: dict[ray.ObjectRef, tuple[ActorHandle, Chunk | None]] = {}  # the oldest first; None: the model is loaded
        self._actors: list[ActorHandle] = []  # that have loaded it
        self._unloaded = 0  # deaths before that, in a row

    def run(self, chunks: list[Chunk], workers: int) -> None:
        """Until every image is made or has failed."""
        self._waiting.extend(chunks)
        for _ in range(workers):
            self._load()
        while self._waiting or any(chunk for _, chunk in self._calls.values()):
            call = ray.wait([*self._calls])[0][0]
            try:
                self._collect(call, ray.get(call))
            except (RayActorError, OutOfMemoryError) as error:
                self._replace_actor(self._calls[call][0], str(error))
            except RayTaskError as error:
                raise error.cause from None
            self._dispatch()

    def end(self) -> None:
        """Ends the actors, whatever they do."""
        for actor in [*self._actors, *(actor for actor, _ in self._calls.values())]:
            ray.kill(actor)

    def _load(self) -> None:
        actor = self._start_actor()
        self._calls[actor.load.remote()] = (actor, None)

    def _dispatch(self) -> None:
        """To each its next chunk, and one more while there are enough for all."""
        for actor in self._actors:
            most = MAX_CHUNKS if len(self._waiting) > len(self._actors) else 1
            while self._waiting and len(self._calls_of(actor)) < most:
                chunk = self._waiting.popleft()
                self._calls[actor.edit.remote(self._read(chunk), self._sizes)] = (actor, chunk)

    def _calls_of(self, actor: ActorHandle) -> list[ray.ObjectRef]:
        return [call for call, (other, _) in self._calls.items() if other == actor]

    def _read(self, chunk: Chunk) -> list[TaskWithFiles]:
        sent = []
        for task in chunk.tasks:
            try:
                request, mask = task.request, task.request.mask
                named = replace(request, image=request.image.resolve(), mask=mask and mask.resolve())
                sent.append(TaskWithFiles(replace(task, request=named), tuple(path.read_bytes() for path in request.inputs)))
            except OSError as error:
                self._fail(task, f"{task.where}: {error}")
        return sent

    def _collect(self, call: ray.ObjectRef, outcome: Outcome | None) -> None:
        actor, chunk = self._calls.pop(call)
        if chunk is None or outcome is None:
            self._actors.append(actor)
            self._unloaded = 0
            return
        tasks = {task.name: task for task in chunk.tasks}
        for warning in outcome.warnings:
            log.warning(warning)
        for name, reason in outcome.failed.items():
            self._fail(tasks[name], reason)
        self._session.made += outcome.made
        self._session.elsewhere += outcome.elsewhere
        if (events := self._session.events) is not None:
            for event in outcome.events:
                events.emit(event)
        self._bar.update(len(tasks))

    def _replace_actor(self, actor: ActorHandle, reason: str) -> None:
        """Starts another for a dead one, which was at work on the oldest of its chunks and had not begun with the others."""
        ray.kill(actor)
        self._actors = [other for other in self._actors if other != actor]
        oldest, *others = [self._calls.pop(call)[1] for call in self._calls_of(actor)]
        self._waiting.extendleft(chunk for chunk in reversed(others) if chunk is not None)
        if oldest is not None:
            log.warning("an actor died, and what it was working on is given out again; Ray's logs say why")
            self._requeue(oldest)
        else:
            self._unloaded += 1
        if self._unloaded == DEATHS:
            raise UserError(f"{DEATHS} actors in a row died before they had loaded the model: {reason.strip().splitlines()[-1]}")
        self._load()

    def _requeue(self, chunk: Chunk) -> None:
        """What is not yet made; the last time image by image, so that the one that kills is alone."""
        remove_parts(self._session.folder, {task.name for task in chunk.tasks})
        left = missing_of(self._session, chunk.tasks)
        deaths, made = chunk.deaths + 1, len(chunk.tasks) - len(left)
        self._session.made += made
        if deaths < DEATHS - 1:
            self._waiting.append(Chunk(left, deaths))
        elif deaths == DEATHS - 1:
            self._waiting.extend(Chunk([task], deaths) for task in left)
        else:
            for task in left:
                self._fail(task, f"{task.where}: {deaths} actors in a row died while they edited it; Ray's logs say why")
        self._bar.update(made if deaths < DEATHS else len(chunk.tasks))
