"""`sdist run --dry-run`: what a run would make, and nothing is written."""

import logging

from .options import RunOptions
from .plan import plan_run
from .problems import ProblemReporter, Report
from .summary import SHOWN, RunResult, run_result

log = logging.getLogger("sdist")


def dry_run(options: RunOptions, show: Report) -> RunResult:
    """The result of a run that makes nothing: what it would have made is left."""
    report = ProblemReporter(show)
    session, plan = plan_run(options, report)
    for task in plan.todo[:SHOWN]:
        request = task.request
        log.info("would make %s.png: %s, %r -> %r", task.name, request.image.name, request.source, request.target)
    if len(plan.todo) > SHOWN:
        log.info("would make %d more", len(plan.todo) - SHOWN)
    session.emit_rows(plan.rows)
    changed = {row.get("image") for row in plan.rows}
    for task in plan.tasks:
        if str(image := session.folder / f"{task.name}.png") not in changed:
            session.emit("there" if task.is_there else "missing", image, task.request)
    result = run_result(session, plan, 0.0, report.problems)
    return result._replace(left=plan.left + len(plan.todo))
