"""index.csv with img_path, source_prompt, target_prompt and images/: the format of LUSD's release and of `sdist run`."""

import logging
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..files.csv_rows import Row, read_rows
from ..files.index_file import COLUMNS, MORE, index_file
from ..files.named import file_in
from ..metrics.profile import Profile
from ..registry import DATASETS
from .base import Dataset, Pair

log = logging.getLogger("sdist")


@DATASETS.register("index")
@dataclass(frozen=True)
class IndexCsv(Dataset):
    """A row is named by its number, `000`, as results are. Read if there: category, caption, truth, instruction.

    The log names rows that cannot be used; they keep their number.
    """

    def load(self, folder: Path, profile: Profile = "clean") -> list[Pair]:
        path, pairs, problems = index_file(folder), list[Pair](), list[str]()
        for number, row in enumerate(read_rows(path, COLUMNS, MORE)):
            try:
                pairs.append(_pair(folder / "images", number, row))
            except UserError as error:
                problems.append(f"{path}, {row.where}: {error}")
        if problems and not pairs:
            raise UserError(problems[0])
        for problem in problems:
            log.warning("left out: %s", problem)
        return pairs


def _pair(images: Path, number: int, row: Row) -> Pair:
    if row.problem:
        raise UserError(row.problem)
    record, truth = row.fields, row.fields.get("truth") or None
    name, source, target = (record[column] for column in COLUMNS)
    if not name or not target:
        raise UserError("img_path and target_prompt must not be empty")
    return Pair(
        f"{number:03d}", file_in(images, name), source, target, record.get("category") or "", record.get("caption") or "",
        truth if truth is None else file_in(images, truth), instruction=record.get("instruction") or "",
    )  # fmt: skip
