"""What a run tells: each problem when it is found, and at its end what became of all pictures."""

import sys
from collections.abc import Mapping

from ..edits.outputs import ERRORS, failed_before
from .plan import Plan
from .session import Session


class Complaints:
    """Prints each problem when it is found, so that none is lost, and counts them; the same one again is no other."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    @property
    def count(self) -> int:
        return len(self.told)

    def __call__(self, text: str) -> None:
        if text in self.told:
            return
        self.told.add(text)
        print(f"sdist: error: {' '.join(text.split())}", file=sys.stderr, flush=True)


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
