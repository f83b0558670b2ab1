"""What a command prints for people besides its output."""

import sys


def print_error(message: str) -> None:
    """One line on stderr, at once."""
    print(f"sdist: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
