"""--engine local: the queues one after the other, in this process."""

import time

from ...distillation.progress import steps_bar
from ..options import RunOptions
from ..plan import Plan, Task, plan_run
from ..problems import ProblemReporter, Report
from ..session import Session
from ..summary import RunResult, interrupted_result, run_result
from .queues import QUEUE, Sizes, begin, edit_queue, queues, recording_failures


def make(options: RunOptions, show: Report) -> RunResult:
    """Plans a run and makes its images."""
    report = ProblemReporter(show)
    session, plan = plan_run(options, report)
    start = time.perf_counter()
    try:
        seconds = edit_all(session, plan, report)
    except KeyboardInterrupt as interrupt:
        raise interrupted_result(session, plan, time.perf_counter() - start, report.problems, interrupt) from None
    return run_result(session, plan, seconds, report.problems)


def edit_all(session: Session, plan: Plan, report: Report) -> float:
    """Edits what is to be made, in seconds; an image that fails is named and recorded, and the others go on."""
    start = time.perf_counter()
    begin(session, plan, report)
    edit_tasks(session, plan.todo, plan.sizes, report)
    return time.perf_counter() - start


def edit_tasks(session: Session, tasks: list[Task], sizes: Sizes, report: Report) -> None:
    """All of these tasks, which may be a part of a run; one bar counts their steps."""
    fail = recording_failures(session, report)
    steps, unit = session.settings.editor.progress
    with steps_bar(steps * len(tasks), session.name, unit) as bar:
        done = 0
        for queue in queues(tasks, QUEUE):
            done += len(queue)
            edit_queue(session, queue, sizes, bar, fail)
            session.end_if_interrupted(done == len(tasks))
            bar.update(steps * done - bar.n)
