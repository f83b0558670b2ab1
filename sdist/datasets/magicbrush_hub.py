"""MagicBrush as it is on the hub, by id, or saved in a folder: osunlp/MagicBrush. Zhang et al. 2023, arXiv 2306.10012."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..errors import UserError
from ..files.named import file_in
from ..files.storage import write_atomic
from ..metrics.profile import Profile
from ..registry import DATASETS
from .base import Dataset, Pair

log = logging.getLogger("sdist")

COLUMNS = ("img_id", "turn_index", "source_img", "target_img", "instruction")


@DATASETS.register("magicbrush_hub")
@dataclass(frozen=True)
class MagicBrushHub(Dataset):
    """ "ID" or "ID@SPLIT" (default: dev), named as the turns of MagicBrush's release are.

    The hub has no descriptions, so the instruction is the target prompt: scores against the wanted image stand, those against
    text do not compare with published ones. Images are kept in the cache of the `datasets` package.
    """

    local: ClassVar[bool] = False

    def load(self, folder: Path, profile: Profile = "clean") -> list[Pair]:
        name, _, split = str(folder).partition("@")
        rows, cache = _rows(name, split or "dev")
        missing = [column for column in COLUMNS if column not in rows.column_names]
        if missing:
            raise UserError(f"dataset {folder} has no column {', '.join(missing)}: have {', '.join(rows.column_names)}")
        return list(_pairs(rows, cache))


def _rows(name: str, split: str) -> tuple[Any, Path]:
    """The rows with images as bytes, and a folder for them. Raises UserError if they cannot be had."""
    try:
        from datasets import Image, config, load_dataset
    except ModuleNotFoundError:
        raise UserError("datasets of the hub need the package datasets: pip install 'sdist[evaluate]'") from None
    log.info("reading dataset %s@%s; the hub is asked for what is not on this disk", name, split)
    try:
        rows = load_dataset(name, split=split)
        for column in ("source_img", "target_img"):
            if column in rows.column_names:
                rows = rows.cast_column(column, Image(decode=False))
    except Exception as error:  # of many kinds: of the network, of the hub, of pyarrow, of a split that is not there
        raise UserError(f"dataset {name}@{split} cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    return rows, Path(config.HF_DATASETS_CACHE) / "sdist" / rows._fingerprint


def _pairs(rows: Any, cache: Path) -> Iterator[Pair]:
    cache.mkdir(parents=True, exist_ok=True)
    for row in rows:
        key = f"{row['img_id']}_1" if row["turn_index"] == 1 else f"{row['img_id']}_inde_{row['turn_index']}"
        image, truth = (_kept(cache, f"{key}_{kind}", row[f"{kind}_img"]) for kind in ("source", "target"))
        yield Pair(key, image, "", row["instruction"], truth=truth, instruction=row["instruction"])


def _kept(cache: Path, name: str, picture: dict[str, Any]) -> Path:
    """The image as a file."""
    if picture["bytes"] is None:
        return Path(picture["path"])
    path = file_in(cache, name)
    if not path.exists():
        write_atomic(path, picture["bytes"])
    return path
