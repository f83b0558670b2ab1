"""How far a run is: a bar on a terminal, a line now and then in a log."""

import logging
import sys
import time
from typing import Any, TypeAlias

from tqdm.auto import tqdm

log = logging.getLogger("sdist")

PARTS, PAUSE = 10, 30.0  # a line at every tenth, or after so many seconds


def steps_bar(total: int, label: str, unit: str = "step", quiet: bool | None = None) -> "Bar":
    """A bar with the time that is left, lines where stderr is neither a terminal nor a notebook's.

    `quiet`: nothing; None: nothing under --quiet.
    """
    quiet = not log.isEnabledFor(logging.INFO) if quiet is None else quiet
    if quiet or sys.stderr.isatty() or "ipykernel" in sys.modules:
        return tqdm(total=total, desc=label, unit=unit, mininterval=0.2, smoothing=0.1, disable=quiet)
    return Lines(total, label, unit)


class Lines:
    """What a log shows instead of a bar, with as much of tqdm's interface as is used here."""

    def __init__(self, total: int, label: str, unit: str) -> None:
        self.n, self.total, self._label, self._unit = 0, total, label, unit
        self._start = self._last = time.monotonic()
        self._postfix, self._part = "", 0

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: float = 1) -> None:
        self.n += int(n)
        now, part = time.monotonic(), PARTS * self.n // max(1, self.total)
        if n > 0 and (part > self._part or now - self._last > PAUSE):
            self._part, self._last = part, now
            sys.stderr.write(f"{self._line(now - self._start)}\n")
            sys.stderr.flush()

    def set_postfix(self, refresh: bool = False, **values: Any) -> None:
        self._postfix = "".join(f", {name} {value}" for name, value in values.items())

    def close(self) -> None:
        """Nothing: the last line stays."""

    def _line(self, seconds: float) -> str:
        left = "" if self.n >= self.total else f", about {_duration(seconds / self.n * (self.total - self.n))} left"
        return f"{self._label}: {self.n}/{self.total} {self._unit}s{left}{self._postfix}"


Bar: TypeAlias = tqdm | Lines


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
