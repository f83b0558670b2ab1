"""Options that count something."""

from ..errors.arguments import check_count


def at_least_one(**counts: int | None) -> None:
    """Raises UserError if an option that is given is below 1, or beyond what anybody counts to."""
    for name, count in counts.items():
        if count is not None:
            check_count(f"--{name}", count)
