"""--engine local: the queues one after the other, in this process."""

import argparse
import time

from ...distillation.callbacks import steps_bar
from ..plan import Plan, Task, planned
from ..session import Session
from ..summary import Complaints, summary
from .queues import QUEUE, Complain, Sizes, begin, edit_queue, queues, remembering


def make(args: argparse.Namespace) -> tuple[list[str], int]:
    """Plans a run and makes its pictures; its summary, and the number of problems."""
    complain = Complaints()
    session, found = planned(args, complain)
    start = time.perf_counter()
    edit_all(session, found, complain)
    return summary({session: found}, time.perf_counter() - start, complain.count), complain.count


def edit_all(session: Session, found: Plan, complain: Complain) -> None:
    """Edits what is to be made; a picture that fails is named and remembered, and the others go on."""
    begin(session, found, complain)
    edit_tasks(session, found.todo, found.sizes, complain)


def edit_tasks(session: Session, tasks: list[Task], sizes: Sizes, complain: Complain) -> None:
    """All of these tasks, which may be a part of a run; one bar counts their steps."""
    fail = remembering(session, complain)
    steps, unit = (1, "picture") if session.settings.baseline else (session.settings.steps, "step")
    with steps_bar(steps * len(tasks), session.name, unit) as bar:
        done = 0
        for queue in queues(tasks, QUEUE):
            done += len(queue)
            edit_queue(session, queue, sizes, bar, fail)
            bar.update(steps * done - bar.n)
