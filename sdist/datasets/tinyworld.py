"""Edit pairs of tinyworld, as `sdist.tinyworld.edits.write_pairs` leaves them."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..files.images import load_image
from ..metrics.pixels import Mask
from ..metrics.profile import Profile
from ..registry import DATASETS
from .base import Dataset, Pair
from .index import IndexCsv


@DATASETS.register("tinyworld")
@dataclass(frozen=True)
class Tinyworld(Dataset):
    """index.csv and images/, kinds of edits as categories; by a pair's key its rendered target in truths/, its mask in masks/."""

    def load(self, folder: Path, profile: Profile = "clean") -> list[Pair]:
        return [_pair(folder, pair) for pair in IndexCsv().load(folder)]


def _pair(folder: Path, pair: Pair) -> Pair:
    truth, mask = (folder / name / f"{pair.key}.png" for name in ("truths", "masks"))
    return replace(pair, truth=truth, mask=partial(_mask, mask) if mask.is_file() else None)


def _mask(path: Path) -> Mask:
    return np.asarray(load_image(path).convert("L")) > 127
