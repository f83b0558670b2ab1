"""LUSD's classes of MagicBrush's turns: what is reported for object insertion and for the rest."""

from collections import Counter
from pathlib import Path
from typing import Literal, NamedTuple

from ..errors import UserError
from ..metrics.profile import Profile
from .base import read_csv

GIVEN_TWICE, MEANT = "243361-output1", "243361-output2"  # in the released table the second row of this key belongs to the other


class Category(NamedTuple):
    turn: str  # name of the turn's source image, without ending
    group: Literal["Add", "Other"]


def read_categories(path: Path, profile: Profile) -> list[Category]:
    """The rows of a csv with the columns idx and category; "add" is a group of its own, all else is "Other".

    official: as the file has them, so that a turn given twice counts twice. clean: the one wrong key of the released table is
    corrected. Raises UserError for a file without these columns, and in the clean profile for a turn that is still given twice.
    """
    rows = [Category(row["idx"], "Add" if row["category"] == "add" else "Other") for row in read_csv(path, ("idx", "category"))]
    if profile == "clean":
        rows = _corrected(rows)
        for turn, count in Counter(row.turn for row in rows).items():
            if count > 1:
                raise UserError(f"{path}: {turn} has {count} rows; one is allowed")
    return rows


def _corrected(rows: list[Category]) -> list[Category]:
    twice = [i for i, row in enumerate(rows) if row.turn == GIVEN_TWICE]
    if len(twice) != 2 or MEANT in {row.turn for row in rows}:
        return rows
    return [row._replace(turn=MEANT) if i == twice[1] else row for i, row in enumerate(rows)]
