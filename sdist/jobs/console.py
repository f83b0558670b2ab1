"""What people read on a terminal beside the output: lines on stderr, which stand above the progress bars."""

import logging
import sys
from io import TextIOWrapper


def print_line(text: str) -> None:
    """One line on stderr, at once. A bar that is drawn there is taken away before and drawn again below."""
    if "tqdm" in sys.modules:  # else there is no bar
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class ConsoleHandler(logging.Handler):
    """Prints what is logged, one line per record."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print_line(self.format(record))
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
