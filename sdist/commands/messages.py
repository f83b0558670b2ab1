"""What a command prints for people besides its output."""

from ..jobs.console import print_line


def print_error(message: str) -> None:
    """One line on stderr, at once."""
    print_line(f"sdist: error: {' '.join(message.split())}")
