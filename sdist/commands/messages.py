"""What a command prints for people besides its output."""

import shutil
import textwrap

from ..jobs.console import print_line


def print_error(message: str) -> None:
    """One line on stderr, at once."""
    print_line(f"sdist: error: {' '.join(message.split())}")


def wrapped(text: str, start: str = "") -> str:
    """A text as wide as the terminal; the lines after the first stand below its beginning."""
    width = shutil.get_terminal_size((100, 24)).columns
    if len(start) >= width // 2:
        return start + text
    return textwrap.fill(text, width, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False) or start


def print_entry(name: str, text: str, column: int = 24) -> None:
    """A name and what there is to say about it beside it."""
    print(wrapped(text, f"  {name:{column}}"))
