"""LUSD's classes of MagicBrush's turns: what is reported for object insertion and for the rest."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from ..errors import UserError
from .profile import Profile

Group = Literal["all", "add", "other"]

GIVEN_TWICE, MEANT = "243361-output1", "243361-output2"  # in the released table the second row of this key belongs to the other


class Category(NamedTuple):
    turn: str  # name of the turn's source picture, without ending
    group: Group


def read_categories(path: Path, profile: Profile) -> list[Category]:
    """The rows of a csv with the columns idx and category; "add" is a group of its own, all else is "other".

    official: as the file has them, so that a turn given twice counts twice. clean: the one wrong key of the released table is
    corrected. UserError for a file without these columns, and in the clean profile for a turn that is still given twice.
    """
    rows = _read(path)
    if profile == "clean":
        rows = _corrected(rows)
        for turn, count in Counter(row.turn for row in rows).items():
            if count > 1:
                raise UserError(f"{path}: {turn} has {count} rows; one is allowed")
    return rows


def positions(turns: Sequence[str], rows: Sequence[Category], group: Group = "all") -> Int[np.ndarray, " rows"]:
    """Where in `turns` the rows of a group are, in the order of the rows; UserError for a row without a turn."""
    place = {turn: i for i, turn in enumerate(turns)}
    wanted = [row.turn for row in rows if group in ("all", row.group)]
    lost = [turn for turn in wanted if turn not in place]
    if lost:
        raise UserError(f"{len(lost)} of {len(wanted)} turns with a category have no scores, the first is {lost[0]}")
    return np.array([place[turn] for turn in wanted], int)


def uncategorized(turns: Sequence[str], rows: Sequence[Category]) -> list[str]:
    """The turns that no row names, which no group counts: one of the released table in the official profile."""
    return sorted(set(turns) - {row.turn for row in rows})


def _read(path: Path) -> list[Category]:
    if not path.is_file():
        raise UserError(f"table of categories {path} {'is not a file' if path.exists() else 'does not exist'}")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"idx", "category"} <= set(reader.fieldnames or ()):
            raise UserError(f"{path} has the columns {', '.join(reader.fieldnames or ())}; idx and category are needed")
        return [Category(row["idx"], "add" if row["category"] == "add" else "other") for row in reader]


def _corrected(rows: list[Category]) -> list[Category]:
    twice = [i for i, row in enumerate(rows) if row.turn == GIVEN_TWICE]
    if len(twice) != 2 or MEANT in {row.turn for row in rows}:
        return rows
    return [row._replace(turn=MEANT) if i == twice[1] else row for i, row in enumerate(rows)]
