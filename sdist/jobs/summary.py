"""What became of the images of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..edits.outputs import ERRORS, failed_before
from .plan import Plan
from .session import Session


class RunResult(NamedTuple):
    """What became of the images of one call."""

    folder: Path
    total: int  # images that the call was asked for, without pairs that cannot be edited
    made: int  # by this call
    there: int  # made by earlier ones
    failed: tuple[str, ...]  # names of those that could not be made, in this call or before; folder/errors/NAME.json says why
    left: int  # for later calls, by `limit`
    problems: tuple[str, ...]  # all that went wrong in this call, one line each
    seconds: float  # of editing, after the model was loaded


def run_result(session: Session, plan: Plan, seconds: float, problems: Sequence[str]) -> RunResult:
    """What a session has made of its plan."""
    failed = tuple(sorted(failed_before(session.folder).intersection(plan.names)))
    return RunResult(session.folder, len(plan.names), session.made, plan.there, failed, plan.left, tuple(problems), seconds)


def summary(results: Sequence[RunResult], problems: int) -> list[str]:
    """What became of all images, on one line, and what else there is to say, on another."""
    total, made, there, left = (sum(getattr(r, name) for r in results) for name in ("total", "made", "there", "left"))
    more = [
        *([f"{left} left by --limit"] if left else []),
        *(f"{len(r.failed)} failed, see {r.folder / ERRORS}" for r in results if r.failed),
        *(["each problem is named above"] if problems else []),
        *([f"{sum(r.seconds for r in results) / made:.2f} s per picture"] if made else []),
    ]
    return [f"{made} of {total} pictures made, {there} were there, {problems} problems", *(["; ".join(more)] if more else [])]
