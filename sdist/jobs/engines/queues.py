"""What every engine does with a plan: queues of images of one size, each read, edited and written; failures are recorded."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from ...distillation.progress import Bar
from ...edits.outputs import ERRORS, remove_parts, write_error
from ...edits.request import Prepared
from ...errors import ImagesError, NotFiniteError
from ...models.memory import AllocationError, allocating
from ...spelling import counted
from ..plan import Plan, Task
from ..problems import Report
from ..session import Session

log = logging.getLogger("sdist")

QUEUE = 64  # images whose latents and embeddings are held at once; how many are in flight is --parallel

Fail = Callable[[Task, str], None]
Sizes = Mapping[tuple[int, int], int]  # images of each size in the whole run, which decide how many draws are tried at once
Ready = tuple[Task, Prepared]


def begin(session: Session, plan: Plan, report: Report) -> None:
    """Removes what killed processes left of the images, and reports what failed before."""
    session.emit_rows(plan.rows)
    for task in plan.found:
        session.emit("there", session.folder / f"{task.name}.png", task.request)
    session.remove_stopped([task.name for task in plan.found])
    others = session.claims.of_others()
    if plan.todo:
        session.check_writable()
        remove_parts(session.folder, {*plan.names} - others)
    if plan.failed:
        failed = counted(plan.failed, "image")
        report(f"{failed} failed in an earlier call, see {session.folder / ERRORS}; --retry tries them again")


def recording_failures(session: Session, report: Report) -> Fail:
    """Reports each image that fails, and writes why beside the results."""

    def fail(task: Task, reason: str) -> None:
        report(reason)
        write_error(session.folder, task.name, reason, task.request)
        session.emit("failed", session.folder / f"{task.name}.png", task.request, reason=reason)

    return fail


def by_size(tasks: list[Task]) -> list[Task]:
    """In the order of the file within each width and height."""
    return sorted(tasks, key=lambda task: task.size)


def queues(tasks: list[Task], most: int) -> Iterator[list[Task]]:
    """Groups of at most so many images of equal width and height."""
    for _, group in groupby(by_size(tasks), key=lambda task: task.size):
        same = list(group)
        yield from (same[i : i + most] for i in range(0, len(same), most))


def edit_queue(session: Session, queue: list[Task], sizes: Sizes, bar: Bar | None, fail: Fail) -> None:
    """Makes the images of one queue; as many draws at once as in the whole run, so that any part of it gives the same pixels."""
    for batch in _by_real_size(_prepare(session, queue, fail)):
        size = batch[0][1].image.size
        _edit(session, batch, session.parallel(min(QUEUE, sizes[size]), size), bar, fail)


def _prepare(session: Session, queue: list[Task], fail: Fail) -> list[Ready]:
    ready = []
    for task in queue:
        try:
            ready.append((task, session.prepare(task.request)))
        except (OSError, ValueError) as error:
            fail(task, f"{task.where}: {error}")
        except MemoryError as error:
            fail(task, f"{task.where}: the image does not fit in memory: {error}")
    return ready


def _by_real_size(ready: list[Ready]) -> Iterator[list[Ready]]:
    """One group, or several if an image turned out to be of another size than its header said."""
    for _, group in groupby(sorted(ready, key=_size), key=_size):
        yield list(group)


def _size(ready: Ready) -> tuple[int, int]:
    return ready[1].image.size


def _edit(session: Session, ready: Sequence[Ready], parallel: int, bar: Bar | None, fail: Fail) -> None:
    tasks, batch = [task for task, _ in ready], [prepared for _, prepared in ready]
    label = tasks[0].name if len(tasks) == 1 else f"{tasks[0].name}-{tasks[-1].name}"
    log.info("%s: %s", counted(len(tasks), "image"), label)

    def admit(index: int) -> bool:
        return session.admit(tasks[index].name, tasks[index].card)

    left = list[Ready]()
    with session.claims.renewed():
        try:
            with allocating(session.method.model.device, "the edit"):
                session.edit(batch, [task.name for task in tasks], label, parallel, bar, admit)
        except ImagesError as error:
            for index, reason in error.reasons.items():
                fail(tasks[index], reason)
        except (AllocationError, NotFiniteError) as error:  # outside of what editors do for single images
            if len(tasks) == 1:
                fail(tasks[0], f"{tasks[0].where}: {error}")
            else:
                log.warning("%s; going on with one image at a time", error)
                left = [one for one in ready if one[0].name not in session.ended]
    for one in left:
        _edit(session, [one], parallel, bar, fail)
