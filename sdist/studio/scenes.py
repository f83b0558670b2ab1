"""Scenes of tinyworld to begin with: drawn when they are asked for, with the prompts of an edit each."""

from functools import cache

from ..tinyworld.edits import EditPair, sample_edit

CHOSEN = (("attach", 7), ("replace", 11), ("recolour", 3), ("attach", 2), ("add", 5), ("replace", 8))  # kind, number
SEED = 2024


@cache
def scenes() -> tuple[EditPair, ...]:
    return tuple(sample_edit(SEED, number, kind) for kind, number in CHOSEN)
