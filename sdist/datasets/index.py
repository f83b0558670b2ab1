"""index.csv with img_path, source_prompt, target_prompt and images/: the format of LUSD's release and of `sdist run`."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UserError
from ..files.csv_rows import Row, read_rows
from ..files.index_file import COLUMNS, MORE, index_file
from ..files.masks import check_shape, read_mask
from ..files.named import file_in
from ..files.opening import image_size
from ..metrics.pixels import Mask
from ..metrics.profile import Profile
from ..registry import DATASETS
from .base import Dataset, Pair

log = logging.getLogger("sdist")


@DATASETS.register("index")
@dataclass(frozen=True)
class IndexCsv(Dataset):
    """A row is named by its number, `000`, as results are. Read if there: category, caption, truth (in images/),
    instruction, mask (in masks/).

    The log names rows that cannot be used; they keep their number.
    """

    def load(self, folder: Path, profile: Profile = "clean") -> list[Pair]:
        path, pairs, problems = index_file(folder), list[Pair](), list[str]()
        for number, row in enumerate(read_rows(path, COLUMNS, MORE)):
            try:
                pairs.append(_pair(folder, number, row))
            except UserError as error:
                problems.append(f"{path}, {row.where}: {error}")
        if problems and not pairs:
            raise UserError(problems[0])
        for problem in problems:
            log.warning("left out: %s", problem)
        return pairs


def _pair(folder: Path, number: int, row: Row) -> Pair:
    if row.problem:
        raise UserError(row.problem)
    images, record = folder / "images", row.fields
    truth, mask = record.get("truth") or None, record.get("mask") or None
    name, source, target = (record[column] for column in COLUMNS)
    if not name or not target:
        raise UserError("img_path and target_prompt must not be empty")
    return Pair(
        f"{number:03d}", file_in(images, name), source, target, record.get("category") or "", record.get("caption") or "",
        truth if truth is None else file_in(images, truth),
        None if mask is None else partial(_read_mask, file_in(folder / "masks", mask), file_in(images, name)),
        record.get("instruction") or "",
    )  # fmt: skip


def _read_mask(path: Path, image: Path) -> Mask:
    """At the size of the image: true where white is at least half."""
    grey, size = read_mask(path).image, image_size(image)
    check_shape(grey.size, size, path.name, image.name)
    return np.asarray(grey if grey.size == size else grey.resize(size, Image.Resampling.BILINEAR)) >= 128
