"""Problems of a run, each reported when it is found."""

from collections.abc import Callable

Report = Callable[[str], None]  # takes one problem, in one line


class ProblemReporter:
    """Hands each problem to `show` when it is found, so that none is lost, and keeps them; a repeated one counts once."""

    def __init__(self, show: Report) -> None:
        self._show, self._problems = show, dict[str, None]()

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(self._problems)

    def __call__(self, text: str) -> None:
        if text not in self._problems:
            self._problems[text] = None
            self._show(text)
