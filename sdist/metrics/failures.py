"""Edits that could not be made stay in every table as nan."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from ..errors import UserError
from .similarity import Scores


class HasEdit(Protocol):
    @property
    def edit(self) -> Image.Image | None: ...


T = TypeVar("T", bound=HasEdit)


def with_failures(items: Sequence[T], names: Iterable[str], score: Callable[[list[T]], dict[str, Scores]]) -> dict[str, Scores]:
    """The scores of these names, one value an item: nan where there is no edit, else what `score` gives for those with one.

    UserError for no items.
    """
    if not items:
        raise UserError("there is nothing to score: at least one edit is needed")
    made = [item.edit is not None for item in items]
    scores = {name: np.full(len(items), np.nan) for name in names}
    for name, values in (score([item for item in items if item.edit is not None]) if any(made) else {}).items():
        scores[name][made] = values
    return scores
