"""What became of the images of a run."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..edits.outputs import ERRORS, failed_before
from ..files.storage import remove, write
from ..spelling import counted
from .interrupts import UNSAVED, Interruption
from .plan import Plan
from .problems import in_order
from .session import Session

log = logging.getLogger("sdist")

SHOWN = 10  # problems that the summary repeats
PROBLEMS = "problems.txt"  # holds all of them, in the output folder


class RunResult(NamedTuple):
    """What became of the images of one call."""

    folder: Path
    total: int  # images that the call was asked for
    made: int  # by this call
    there: int  # made by earlier ones
    failed: tuple[str, ...]  # names of those that could not be made, in this call or before; folder/errors/NAME.json says why
    left: int  # for later calls, by `limit`
    problems: tuple[str, ...]  # all that went wrong in this call, one line each
    seconds: float  # of editing, after the model was loaded
    refused: int = 0  # images of pairs that cannot be edited
    changed: int = 0  # there, but made for what their row was before; `changed` makes them again
    elsewhere: int = 0  # that another process is making, or has made meanwhile

    def __repr__(self) -> str:
        """In one line."""
        return f"<RunResult in {self.folder}: {summary([self])[0]}, {counted(len(self.problems), 'problem')}>"


def run_result(session: Session, plan: Plan, seconds: float, problems: Sequence[str]) -> RunResult:
    """What a session has made of its plan."""
    failed = tuple(sorted(failed_before(session.folder).intersection(plan.names)))
    counts = (len(plan.tasks) + plan.refused, session.made, plan.there)
    more = (plan.refused, plan.changed, session.elsewhere)
    return RunResult(session.folder, *counts, failed, plan.left, tuple(problems), seconds, *more)


def interrupted_result(
    session: Session, plan: Plan, seconds: float, problems: Sequence[str], interrupt: KeyboardInterrupt
) -> Interruption:
    """The interrupt of a run, with what a session had made of its plan by then; what it had not is left."""
    result = run_result(session, plan, seconds, problems)
    failed = len({task.name for task in plan.todo}.intersection(result.failed))
    left = plan.left + max(0, len(plan.todo) - session.made - session.elsewhere - failed)
    return Interruption(str(interrupt) or UNSAVED, result._replace(left=left))


def summary(
    results: Sequence[RunResult], problems: Sequence[str] = (), file: Path | None = None, why_left: str = "--limit"
) -> list[str]:
    """What became of all images, on one line, what else there is to say, and the first problems; `file` has all of them."""
    made, there, total = (sum(getattr(r, name) for r in results) for name in ("made", "there", "total"))
    counts = [f"{made} of {total} made", f"{there} already there", f"{sum(len(r.failed) for r in results)} failed"]
    others = {"refused": "refused", "changed": "changed since (--changed)", "elsewhere": "left to another process"}
    counts += [f"{count} {label}" for name, label in others.items() if (count := sum(getattr(r, name) for r in results))]
    return [", ".join(counts), *_more(results, made, why_left), *_problems(problems, file)]


def _more(results: Sequence[RunResult], made: int, why_left: str) -> list[str]:
    left = sum(r.left for r in results)
    more = [
        *([f"{left} not made yet ({why_left})"] if left else []),
        *(f"{len(r.failed)} failed, see {r.folder / ERRORS}" for r in results if r.failed),
        *([f"{sum(r.seconds for r in results) / made:.2f} s per image"] if made else []),
    ]
    return ["; ".join(more)] if more else []


def _problems(problems: Sequence[str], file: Path | None) -> list[str]:
    if not problems:
        return []
    problems = in_order(problems)
    more = [f"  and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    where = "" if file is None else f", all in {file}"
    return [f"{counted(len(problems), 'problem')}{where}:", *(f"  {problem}" for problem in problems[:SHOWN]), *more]


def write_problems(folder: Path, problems: Sequence[str]) -> Path | None:
    """The file of all problems of a call, in its output folder; the one of an earlier call goes if there are none.

    None if there is no such file, or none that is of this call because nothing can be written there, of which the log warns.
    """
    file = folder / PROBLEMS
    try:
        if problems:
            write(file, "".join(f"{problem}\n" for problem in in_order(problems)).encode(errors="backslashreplace"))
            return file
        remove(file)
    except OSError as error:
        what = "cannot be written" if problems else "is of an earlier call and cannot be removed"
        log.warning("%s %s: %s", file, what, error.strerror or error)
    return None
