"""What Ctrl-C and SIGTERM do to a command: the first signal lets the step that is being made end, the second does not wait.

Handlers are set by the command line alone: in a script of one's own, `sdist.edit` and `sdist.run` leave signals as they are.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .summary import RunResult

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
WAITING = b"\nstopping after this step, and keeping it; once more stops at once\n"


UNSAVED = "interrupted; what was not finished was not saved"


class Interruption(KeyboardInterrupt):
    """An interrupt after which all is kept that can be; its text says what, and `result` is that of a run."""

    def __init__(self, text: str, result: "RunResult | None" = None) -> None:
        super().__init__(text)
        self.result = result


class Interrupts:
    """The signals of this process, while a command runs in it."""

    def __init__(self) -> None:
        self._number: int | None = None  # of the first signal
        self._stepping = False

    @property
    def wanted(self) -> bool:
        """Whether the command is to end after the present step."""
        return self._number is not None

    @property
    def exit_code(self) -> int:
        """What a shell says of a process that such a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self._number or signal.SIGINT)

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handles the signals in the block, in the main thread, but for those that whoever started this wants to be ignored."""
        self._number = None
        before = {number: signal.getsignal(number) for number in SIGNALS} if _is_main_thread() else {}
        taken = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
        for number in taken:
            signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in taken.items():
                signal.signal(number, handler)

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """In the block somebody looks at `wanted` after every step; elsewhere a signal is a KeyboardInterrupt at once."""
        self._stepping = True
        try:
            yield
        finally:
            self._stepping = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first = self._number is None
        self._number = number if first else self._number
        if not (first and self._stepping):
            raise KeyboardInterrupt
        os.write(2, WAITING)  # print is not for handlers: it may be what was interrupted


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


interrupts = Interrupts()
