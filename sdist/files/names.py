"""Names of files that are made from other names and from texts."""

import re
from collections.abc import Iterable

LONGEST = 120  # bytes of a name's beginning; what is put behind it fits into the 255 that file systems allow
SHORT = 40  # characters of a text that a name shows


def as_name(text: str) -> str:
    """The text as (a part of) a file's name: letters, digits and . - _ and spaces; no hidden file, never empty, not too long."""
    kept = re.sub(r"[^\w.\- ]", "_", text.encode("utf-8", "replace").decode()).strip(" ").lstrip(".")
    return kept.encode()[:LONGEST].decode(errors="ignore") or "image"


def short_form(text: str) -> str:
    """A text in lower case with hyphens, whole words as far as they fit: "A cat, in snow" is a-cat-in-snow."""
    words = re.findall(r"\w+", text.lower().encode("utf-8", "ignore").decode())
    short = words[0][:SHORT] if words else ""
    for word in words[1:]:
        if len(short) + len(word) + 1 > SHORT:
            break
        short = f"{short}-{word}"
    return as_name(short) if short else "edit"


class FreeNames:
    """Gives out names that are not taken, each once; upper and lower case are one, as on some disks."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        """`taken` are in lower case."""
        self._taken, self._last = set(taken), dict[tuple[str, str], int]()

    def take(self, name: str, ending: str = "") -> str:
        """The name with its ending, or NAME_2, NAME_3, ... with it, if that is taken."""
        folded = name.casefold()
        number = self._last.get((folded, ending), 1)
        while (free := f"{_with_number(folded, number)}{ending}") in self._taken:
            number += 1
        self._taken.add(free)
        self._last[folded, ending] = number
        return f"{_with_number(name, number)}{ending}"


def _with_number(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_{number}"


def numbered(name: str, taken: Iterable[str]) -> str:
    """The name, or NAME_2, NAME_3, ... if it is taken."""
    return FreeNames(taken).take(name)


def unique_names(names: Iterable[str]) -> list[str]:
    """The names, numbered where one was there before."""
    free = FreeNames()
    return [free.take(name) for name in names]
