"""What two prompts must be; imports nothing, so that it is known before anything slow is loaded."""

from ..errors import UserError


def check_prompts(source: str, target: str) -> None:
    """Raises UserError for prompts that ask for nothing."""
    if not target.strip():
        raise UserError("the target prompt is empty; say what the picture should show, or what to do with an instruction")
    if source.split() == target.split():
        raise UserError(f"source and target prompt are identical ({target!r}): there is nothing to edit")
