"""Who is here. Each tab of a browser is a visitor, known by a random name that the tab keeps, so that a reload finds it again."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread

from .limits import Offer
from .visitor import MINUTE, Visitor

TAB = re.compile(r"[0-9a-f]{32}")  # 128 random bits: nobody guesses another's


class Visitors:
    """Visitors by their tabs."""

    def __init__(self, offer: Offer) -> None:
        self._offer, self._known, self._lock = offer, dict[str, Visitor](), Lock()

    def of(self, tab: str | None) -> Visitor:
        """The visitor of a tab, who is thereby seen; a new one for a new tab. What is no tab's name has one without a name."""
        if tab is None or not TAB.fullmatch(tab):
            return Visitor(self._offer)
        with self._lock:
            if tab not in self._known:
                self._known[tab] = Visitor(self._offer, tab)
            visitor = self._known[tab]
        visitor.is_here()
        return visitor

    def left(self, tab: str) -> None:
        """A page says that it was closed, or that it will be loaded again."""
        if tab in self._known:
            self._known[tab].has_left = True

    def sweep(self, everyone: bool = False) -> None:
        """Closes those who have been away too long."""
        with self._lock:
            gone = [tab for tab, visitor in self._known.items() if everyone or visitor.is_gone]
            closed = [self._known.pop(tab) for tab in gone]
        for visitor in closed:
            visitor.close()

    @contextmanager
    def swept(self) -> Iterator[None]:
        """Sweeps every minute, and everyone out at the end."""
        end = Event()

        def sweeping() -> None:
            while not end.wait(MINUTE):
                self.sweep()

        Thread(target=sweeping, daemon=True).start()
        try:
            yield
        finally:
            end.set()
            self.sweep(everyone=True)
