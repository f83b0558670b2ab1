"""sdist run: a folder with index.csv, in queues; finished rows are skipped, bad rows are named and the rest goes on."""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from tqdm.auto import tqdm

from ..callbacks import steps_bar
from ..editing import Prepared
from ..errors import PicturesError, UserError
from ..outputs import ERRORS, failed_before, output_files, remove_parts, write_error
from .plan import Plan, Task, plan, read_rows
from .session import Session

log = logging.getLogger("sdist")

QUEUE = 64  # pictures whose latents and embeddings are held at once; how many are in flight is --batch


class Complaints:
    """Prints each problem when it is found, so that none is lost, and counts them; the same one again is no other."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    @property
    def count(self) -> int:
        return len(self._told)

    def __call__(self, text: str) -> None:
        if text in self._told:
            return
        self._told.add(text)
        print(f"sdist: error: {' '.join(text.split())}", file=sys.stderr, flush=True)


def main(args: argparse.Namespace) -> int:
    check_counts(args, "seeds", "limit")
    complain = Complaints()
    rows = read_rows(args.input, complain, args.shard)
    session = Session(args)
    if rows:
        session.load()
    found, start = plan(session, rows, args, complain), time.perf_counter()
    edit_all(session, found, complain)
    print(*summary({session: found}, time.perf_counter() - start, complain.count), sep="\n")
    return 2 if complain.count else 0


def check_counts(args: argparse.Namespace, *names: str) -> None:
    for name in names:
        given = getattr(args, name)
        if given is not None and given < 1:
            raise UserError(f"--{name} must be at least 1, got {given}")


def summary(work: Mapping[Session, Plan], seconds: float, problems: int) -> list[str]:
    """What became of all pictures, on one line, and what else there is to say, on another."""
    made, plans = sum(session.made for session in work), work.values()
    left = sum(p.left for p in plans)
    failed = {s.folder / ERRORS: len(failed_before(s.folder) & {*p.names}) for s, p in work.items()}
    more = [
        *([f"{left} left by --limit"] if left else []),
        *(f"{count} failed, see {folder}" for folder, count in failed.items() if count),
        *([f"{seconds / made:.2f} s a picture"] if made else []),
    ]
    total, there = sum(len(p.names) for p in plans), sum(p.there for p in plans)
    return [f"{made} of {total} pictures made, {there} were there, {problems} problems", *(["; ".join(more)] if more else [])]


# --- queues ------------------------------------------------------------------------------------------------------------

Fail = Callable[[Task, str], None]
Ready = tuple[Task, Prepared]


def edit_all(session: Session, found: Plan, complain: Callable[[str], None]) -> None:
    """Edits what is to be made; a picture that fails is named and remembered, and the others go on."""
    remove_parts(session.folder, {*found.names})
    if found.failed:
        complain(f"{found.failed} pictures failed in an earlier call, see {session.folder / ERRORS}; --retry tries them again")

    def fail(task: Task, reason: str) -> None:
        complain(reason)
        write_error(session.folder, task.name, reason, task.job)

    steps, unit = (1, "picture") if session.settings.baseline else (session.settings.steps, "step")
    with steps_bar(steps * len(found.todo), session.name, unit) as bar:
        done = 0
        for queue in queues(found.todo):
            done += len(queue)
            for batch in _equal(_prepare(session, queue, fail)):
                size = batch[0][1].image.size
                _edit(session, batch, session.lanes(min(QUEUE, found.sizes[size]), size), bar, fail)
            bar.update(steps * done - bar.n)


def queues(tasks: list[Task]) -> Iterator[list[Task]]:
    """Groups of at most QUEUE pictures of equal width and height, in the order of the file within each size."""
    by_size = sorted(tasks, key=lambda task: task.size)
    for _, group in groupby(by_size, key=lambda task: task.size):
        same = list(group)
        yield from (same[i : i + QUEUE] for i in range(0, len(same), QUEUE))


def _prepare(session: Session, queue: list[Task], fail: Fail) -> list[Ready]:
    ready = []
    for task in queue:
        try:
            ready.append((task, session.prepare(task.job)))
        except (OSError, ValueError) as error:
            fail(task, f"{task.where}: {error}")
    return ready


def _equal(ready: list[Ready]) -> Iterator[list[Ready]]:
    """One group, or several if a picture turned out to be of another size than its header said."""
    for _, group in groupby(sorted(ready, key=lambda own: own[1].image.size), key=lambda own: own[1].image.size):
        yield list(group)


def _edit(session: Session, ready: Sequence[Ready], lanes: int, bar: tqdm, fail: Fail) -> None:
    tasks, batch = [task for task, _ in ready], [prepared for _, prepared in ready]
    label = f"{tasks[0].name}-{tasks[-1].name}"
    log.info("%d pictures, %s", len(tasks), label)
    try:
        session.edit(batch, [output_files(session.folder, task.name) for task in tasks], label, lanes, bar)
    except PicturesError as error:
        for place, reason in error.reasons.items():
            fail(tasks[place], reason)
