"""One edit at a time for all visitors, in the order in which they were asked for."""

from collections.abc import Callable
from threading import Lock, Thread

from ..errors import UserError

Task = Callable[[], None]


class Bench:
    """A line of tasks, and a thread that does the first of it for as long as there is one. A task raises nothing."""

    def __init__(self, most: int) -> None:
        self._most, self._line, self._lock = most, list[Task](), Lock()
        self._thread: Thread | None = None

    def ask(self, task: Task) -> None:
        """Puts a task at the end of the line. Raises UserError if too many wait."""
        with self._lock:
            if len(self._line) > self._most:
                raise UserError(f"{len(self._line) - 1} edits are waiting already: press Edit again when some of them are made")
            self._line.append(task)
            if len(self._line) == 1:
                self._thread = Thread(target=self._serve, daemon=True)
                self._thread.start()

    def ahead(self, task: Task) -> int:
        """How many come before it; 0: it is its turn, or it is done."""
        with self._lock:
            return self._line.index(task) if task in self._line else 0

    @property
    def has_waiting(self) -> bool:
        return len(self._line) > 1

    def leave(self, task: Task) -> bool:
        """Takes a task out of the line if it has not begun; whether it was so."""
        with self._lock:
            if task not in self._line[1:]:
                return False
            self._line.remove(task)
            return True

    def wait(self, seconds: float) -> None:
        """Until nothing is being done, at most so long: a process that ends within a step of an edit ends with an abort."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _serve(self) -> None:
        is_more = True
        while is_more:
            self._line[0]()  # only this thread removes the first
            with self._lock:
                self._line.pop(0)
                is_more = bool(self._line)
