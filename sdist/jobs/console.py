"""What people read on a terminal beside the output: lines on stderr, which stand above the progress bars."""

import logging
import sys
from io import TextIOWrapper

from ..spelling import one_line


def print_line(text: str) -> None:
    """One line on stderr, at once, with control characters written out.

    A bar that is drawn there is taken away before and drawn again below.
    """
    text = one_line(text)
    if "tqdm" in sys.modules:  # else there is no bar
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class ConsoleHandler(logging.Handler):
    """Prints what is logged: one line per record of sdist, those that there are of others'."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            is_one = record.name == "sdist" and not record.exc_info
            for line in [text] if is_one else text.splitlines():
                print_line(line)
        except Exception:  # as logging's own handlers: what cannot be printed must not end the work
            self.handleError(record)


def set_up_logging(verbose: bool) -> None:
    """Warnings of all packages, and if `verbose` what sdist itself logs as information, go to stderr."""
    for stream in (sys.stdout, sys.stderr):  # a path or a prompt that the terminal cannot show must not end the work
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[ConsoleHandler()])
    logging.getLogger("sdist").setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # Lightning imports it, and no edit needs its cache
