"""Names of files that are made from other names and from texts."""

import re
from collections.abc import Collection, Iterable

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


def numbered(name: str, taken: Collection[str]) -> str:
    """The name, or NAME_2, NAME_3, ... if it is taken; upper and lower case are one, as on some disks."""
    folded = name.casefold()
    number, free = 1, folded
    while free in taken:
        number += 1
        free = f"{folded}_{number}"
    return name if number == 1 else f"{name}_{number}"


def unique_names(names: Iterable[str]) -> list[str]:
    """The names, numbered where one was there before."""
    unique, taken = list[str](), set[str]()
    for name in names:
        unique.append(numbered(name, taken))
        taken.add(unique[-1].casefold())
    return unique
