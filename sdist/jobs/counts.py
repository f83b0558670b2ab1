"""Options that count something."""

from ..errors import UserError

MOST = 10**7


def at_least_one(**counts: int | None) -> None:
    """Raises UserError if an option that is given is below 1, or beyond what anybody counts to."""
    for name, count in counts.items():
        if count is not None and count < 1:
            raise UserError(f"--{name} must be at least 1, got {count}")
        if count is not None and count > MOST:
            raise UserError(f"--{name} must be at most {MOST}, got {count}")
