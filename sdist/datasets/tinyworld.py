"""Edit pairs of tinyworld, as `sdist.tinyworld.edits.write_pairs` leaves them."""

from dataclasses import dataclass, replace
from pathlib import Path

from ..metrics.profile import Profile
from ..registry import DATASETS
from .base import Dataset, Pair
from .index import IndexCsv


@DATASETS.register("tinyworld")
@dataclass(frozen=True)
class Tinyworld(Dataset):
    """index.csv and images/, the kind of edit as category, and truths/ with the rendered target of each pair under its key."""

    def load(self, folder: Path, profile: Profile = "clean") -> list[Pair]:
        return [replace(pair, truth=folder / "truths" / f"{pair.key}.png") for pair in IndexCsv().load(folder)]
