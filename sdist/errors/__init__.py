"""The one exception that is meant for people: a single line that says what was given, what is allowed and where."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Bad input; the command line prints its message without a traceback and exits with code 2."""


def unknown(kind: str, name: str, allowed: Iterable[str], where: str = "") -> UserError:
    """An error for a name that does not exist, with all names that do and the nearest one."""
    names = sorted(allowed)
    near = nearest(name, names)
    hint = f"; did you mean '{near}'?" if near else ":"
    place = f" in {where}" if where else ""
    return UserError(f"unknown {kind} '{name}'{place}{hint} have {', '.join(names)}")


def nearest(name: str, names: Iterable[str]) -> str:
    """The name that was probably meant, whatever its case and hyphens; empty where none is near."""
    plain = {other.casefold().replace("-", "_"): other for other in names}
    near = get_close_matches(name.casefold().replace("-", "_"), plain, n=1)
    return plain[near[0]] if near else ""


class NotFiniteError(FloatingPointError):
    """A network gave NaN or infinity; the message names it."""


class ImagesError(FloatingPointError):
    """Some images of a batch came to nothing, the others are delivered; `reasons` says why by their places in the batch."""

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__("; ".join(reasons.values()))
        self.reasons = reasons
