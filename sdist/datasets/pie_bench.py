"""PIE-Bench: mapping_file.json, annotation_images/ and masks by run lengths. Ju et al. 2023, arXiv 2310.01506."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files.named import file_in
from ..metrics.pixels import Mask
from ..metrics.profile import Profile
from ..registry import DATASETS
from .base import Dataset, Pair, read_json, text

KINDS = (
    "random", "change_object", "add_object", "delete_object", "change_content", "change_pose", "change_color",
    "change_material", "change_background", "change_style",
)  # fmt: skip


SIDE = 512  # pixels of every image and mask


@DATASETS.register("pie_bench")
@dataclass(frozen=True)
class PieBench(Dataset):
    """A pair is named by its number of twelve digits; brackets around what differs in the prompts are taken away."""

    def load(self, folder: Path, profile: Profile = "clean") -> list[Pair]:
        path = folder / "mapping_file.json"
        return [_pair(folder, key, record, f"{path}, {key}") for key, record in read_json(path).items()]


def _pair(folder: Path, key: str, record: Any, where: str) -> Pair:
    if not isinstance(record, dict):
        raise UserError(f"{where} is a {type(record).__name__}, not a mapping")
    source, target = (
        text(record, name, where).replace("[", "").replace("]", "") for name in ("original_prompt", "editing_prompt")
    )
    kind, lengths = text(record, "editing_type_id", where), record.get("mask", [])
    if not kind.isdigit() or int(kind) >= len(KINDS):
        raise UserError(f"{where}: editing_type_id is {kind!r}, allowed are 0 to {len(KINDS) - 1}")
    if not isinstance(lengths, list) or len(lengths) % 2 or not all(isinstance(n, int) and n >= 0 for n in lengths):
        raise UserError(f"{where}: mask is not a list of starts and lengths")
    image = file_in(folder / "annotation_images", text(record, "image_path", where))
    order = record.get("editing_instruction") or ""
    return Pair(key, image, source, target, KINDS[int(kind)], mask=partial(decode_runs, lengths), instruction=order)


def decode_runs(runs: Sequence[int]) -> Mask:
    """A mask from start, length, start, length, ... over the pixels row by row; a run beyond the last pixel ends with it.

    The outermost pixels always belong to the mask, as the benchmark has it in both profiles. Raises UserError for an odd count or
    a negative number.
    """
    if len(runs) % 2 or min(runs, default=0) < 0:
        raise UserError(f"a mask is pairs of start and length, none negative; got {len(runs)} numbers, the least {min(runs)}")
    pixels = np.zeros(SIDE * SIDE, bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        pixels[start : start + length] = True
    mask = pixels.reshape(SIDE, SIDE)
    mask[[0, -1]] = mask[:, [0, -1]] = True
    return mask
