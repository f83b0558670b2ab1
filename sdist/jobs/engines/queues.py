"""What every engine does with a plan: queues of pictures of one size, each read, edited and written; a failure is remembered."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from tqdm.auto import tqdm

from ...edits.outputs import ERRORS, output_files, remove_parts, write_error
from ...edits.request import Prepared
from ...errors import PicturesError
from ..plan import Plan, Task
from ..session import Session

log = logging.getLogger("sdist")

QUEUE = 64  # pictures whose latents and embeddings are held at once; how many are in flight is --batch

Complain = Callable[[str], None]
Fail = Callable[[Task, str], None]
Sizes = Mapping[tuple[int, int], int]  # pictures of each size in the whole run, which decide about lanes
Ready = tuple[Task, Prepared]


def begin(session: Session, found: Plan, complain: Complain) -> None:
    """Removes what killed processes left of the pictures, none of which may be in work, and says what failed before."""
    remove_parts(session.folder, {*found.names})
    if found.failed:
        complain(f"{found.failed} pictures failed in an earlier call, see {session.folder / ERRORS}; --retry tries them again")


def remembering(session: Session, complain: Complain) -> Fail:
    """Names each picture that fails, and writes why beside the results."""

    def fail(task: Task, reason: str) -> None:
        complain(reason)
        write_error(session.folder, task.name, reason, task.request)

    return fail


def by_size(tasks: list[Task]) -> list[Task]:
    """In the order of the file within each width and height."""
    return sorted(tasks, key=lambda task: task.size)


def queues(tasks: list[Task], most: int) -> Iterator[list[Task]]:
    """Groups of at most so many pictures of equal width and height."""
    for _, group in groupby(by_size(tasks), key=lambda task: task.size):
        same = list(group)
        yield from (same[i : i + most] for i in range(0, len(same), most))


def edit_queue(session: Session, queue: list[Task], sizes: Sizes, bar: tqdm | None, fail: Fail) -> None:
    """Makes the pictures of one queue; lanes are those of the whole run, so that any part of it gives the same pixels."""
    for batch in _equal(_prepare(session, queue, fail)):
        size = batch[0][1].image.size
        _edit(session, batch, session.lanes(min(QUEUE, sizes[size]), size), bar, fail)


def _prepare(session: Session, queue: list[Task], fail: Fail) -> list[Ready]:
    ready = []
    for task in queue:
        try:
            ready.append((task, session.prepare(task.request)))
        except (OSError, ValueError) as error:
            fail(task, f"{task.where}: {error}")
    return ready


def _equal(ready: list[Ready]) -> Iterator[list[Ready]]:
    """One group, or several if a picture turned out to be of another size than its header said."""
    for _, group in groupby(sorted(ready, key=lambda own: own[1].image.size), key=lambda own: own[1].image.size):
        yield list(group)


def _edit(session: Session, ready: Sequence[Ready], lanes: int, bar: tqdm | None, fail: Fail) -> None:
    tasks, batch = [task for task, _ in ready], [prepared for _, prepared in ready]
    label = f"{tasks[0].name}-{tasks[-1].name}"
    log.info("%d pictures, %s", len(tasks), label)
    try:
        session.edit(batch, [output_files(session.folder, task.name) for task in tasks], label, lanes, bar)
    except PicturesError as error:
        for place, reason in error.reasons.items():
            fail(tasks[place], reason)
