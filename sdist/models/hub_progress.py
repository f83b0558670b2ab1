"""Says in the log how far a download is, and what the hub's library says; its own bars and lines would break ours."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

log = logging.getLogger("sdist")

SPACE, EVERY = 5.0, 30.0  # seconds without a line, at least and at most, as long as bytes come in
PART = 0.1  # of all bytes that are worth a line
ADDRESS = re.compile(r"Error while downloading from \S+: ")


def progress_of(what: str) -> type[tqdm]:
    """The class of bars for a download of that name, as `snapshot_download` takes it: a line per tenth, not too often."""

    class Lines(tqdm):
        """Counts bytes, and draws nothing."""

        said = ""  # of all bars of a download, some of which count the same

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})
            self._is_bytes, self._done, self._shown, self._time = options.get("unit") == "B", 0.0, 0.0, time.monotonic()

        def update(self, n: float | None = 1) -> bool | None:
            self._done += n or 0
            total, waited = self.total or 0, time.monotonic() - self._time
            if not (self._is_bytes and total) or waited < SPACE:
                return None
            if self._done - self._shown >= PART * total or waited >= EVERY:
                self._shown, self._time = self._done, time.monotonic()
                text = f"{_size(self._done)} of {_size(total)}"
                if text != Lines.said:
                    Lines.said = text
                    log.info("fetching %s: %s", what, text)
            return None

    return Lines


@contextmanager
def hub_says(what: str) -> Iterator[None]:
    """What the hub's library warns of, such as a connection that it tries again, is one line of ours each."""
    library = logging.getLogger("huggingface_hub")
    before = library.handlers, library.propagate
    library.handlers, library.propagate = [_Lines(what)], False
    try:
        yield
    finally:
        library.handlers, library.propagate = before


class _Lines(logging.Handler):
    def __init__(self, what: str) -> None:
        super().__init__(logging.WARNING)
        self._what = what

    def emit(self, record: logging.LogRecord) -> None:
        log.warning("fetching %s: %s", self._what, ADDRESS.sub("", " ".join(record.getMessage().split())))


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
