"""Problems of a run, each reported when it is found."""

import re
import sys
from collections.abc import Callable, Iterable

from ..spelling import one_line

LINE = re.compile(r"\blines? (\d+)")
Report = Callable[[str], None]  # takes one problem, in one line


def in_order(problems: Iterable[str]) -> list[str]:
    """Those of lines of a file in the order of the lines, whenever they were found; then the others."""
    lines = {problem: LINE.search(problem) for problem in problems}
    return sorted(lines, key=lambda problem: int(found[1]) if (found := lines[problem]) else sys.maxsize)


class ProblemReporter:
    """Hands each problem to `show` when it is found, so that none is lost, and keeps them; a repeated one counts once."""

    def __init__(self, show: Report) -> None:
        self._show, self._problems = show, dict[str, None]()

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(self._problems)

    def __call__(self, text: str) -> None:
        text = one_line(text)
        if text not in self._problems:
            self._problems[text] = None
            self._show(text)
