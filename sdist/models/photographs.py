"""Models of drawn scenes, and what edits a photograph instead."""

import logging
from functools import cache

from .base import Backbone
from .catalogue import MODELS, OF_TINYWORLD
from .folders import on_disk

log = logging.getLogger("sdist")

ALIAS = "sd15"  # edits photographs, and is the smallest that does
DOWNLOAD, CARD = 4.3, 8  # GB of its weights in float32, and of a GPU that holds them: docs/models.md, Sizes


def report_photograph(model: Backbone, size: tuple[int, int]) -> None:
    """Says once per model of drawn scenes that an image of that size (width, height) is none, as far as its size tells."""
    side = model.native_side
    if size != (side, side) and model.scale == OF_TINYWORLD:
        _report(model.name, side)


@cache
def _report(name: str, side: int) -> None:
    text = "the model %s knows drawn scenes of %d x %d pixels only; for a photograph: sdist edit ... --model %s (%s)"
    there = "on this disk" if any(map(on_disk, MODELS[ALIAS].sources)) else f"a download of {DOWNLOAD} GB"
    log.warning(text, name, side, side, ALIAS, f"{there}, {CARD} GB of GPU memory")
