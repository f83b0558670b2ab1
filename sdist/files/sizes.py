"""What --size may say. Imports nothing heavy."""

from ..errors import UserError

RULES = ("native", "keep")


def stated_size(text: str) -> tuple[int, int] | None:
    """Width and height that it states; None for a rule by which they follow from the image. Raises UserError for neither."""
    if text in RULES:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and 0 < len(p) <= 6 for p in parts):
        raise UserError(f"size must be {', '.join(RULES)} or WIDTHxHEIGHT, got {text!r}")
    return int(parts[0]), int(parts[1])
