"""The pairs of --input: of a folder with index.csv, row by row, or of a dataset."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..datasets.base import load_dataset
from ..datasets.index import COLUMNS
from ..edits.request import Request
from ..errors import UserError
from ..registry import DATASETS
from .options import WHOLE
from .problems import Report


@dataclass(frozen=True)
class InputPair:
    """One image and its prompts; `number` counts them from 0, `where` names it in messages, `key` in results."""

    number: int
    where: str
    key: str
    image: Path
    source: str
    target: str
    instruction: str

    def request(self, seed: int, instructed: bool) -> Request:
        """What is asked for. Raises UserError for prompts that say nothing."""
        return Request(self.image, self.source, self.target, seed, instruction=self.instruction if instructed else "")


def in_shard(number: int, shard: tuple[int, int]) -> bool:
    """Whether a pair belongs to shard (i, n), which has the pairs i, i + n, ..."""
    return number % shard[1] == shard[0]


def dataset_of(source: str) -> str:
    """The name of a dataset for what --input names: FORMAT:DIR, or a folder with index.csv."""
    return source if source.partition(":")[0] in DATASETS.names() else f"index:{source}"


def read_pairs(source: str, report: Report, shard: tuple[int, int] = WHOLE) -> list[InputPair]:
    """The pairs of what --input names; `report` hears of rows of index.csv that cannot be used."""
    dataset = dataset_of(source)
    if dataset != source:
        return read_index(Path(source), report, shard)
    return [
        InputPair(number, f"{dataset}, pair {pair.key}", pair.key, pair.image, pair.source, pair.target, pair.instruction)
        for number, pair in enumerate(load_dataset(dataset))
    ]


def read_index(folder: Path, report: Report, shard: tuple[int, int] = WHOLE) -> list[InputPair]:
    """The pairs of folder/index.csv; `report` hears of each row of the shard that cannot be used, by its line."""
    path = folder / "index.csv"
    if not path.is_file():
        raise UserError(f"{path} does not exist; it lists {', '.join(COLUMNS)}, with the images in {folder / 'images'}")
    csv.field_size_limit(2**31 - 1)
    pairs: list[InputPair] = []
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(line.replace("\0", "\udc00") for line in file)  # Python 3.10 would end at a zero byte
        try:
            missing = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
            if missing:
                raise UserError(f"{path} has no column {', '.join(missing)}: needs {', '.join(COLUMNS)}, in UTF-8")
            for number, record in enumerate(reader):
                try:
                    pairs.append(_read_row(folder, number, reader.line_num, record))
                except (OSError, ValueError, RuntimeError) as error:
                    if in_shard(number, shard):
                        report(f"index.csv line {reader.line_num}: {error}")
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}, is not csv: {error}") from None
    return pairs


def _read_row(folder: Path, number: int, line: int, record: dict) -> InputPair:
    fields: list[Any] = [record.get(c) for c in COLUMNS]  # None where the line is too short
    name, source, target = fields
    if not name or None in fields or None in record:
        raise UserError(f"needs {len(COLUMNS)} fields: {', '.join(COLUMNS)}")
    instruction = record.get("instruction") or ""  # a column that may be there
    if any("\udc00" <= character <= "\udcff" for character in "".join([*fields, instruction])):
        raise UserError("is not UTF-8 text")
    images = (folder / "images").resolve()
    image = (images / name).resolve()
    if not image.is_relative_to(images):
        raise UserError(f"img_path {name!r} leaves the folder {folder / 'images'}")
    texts = (source.strip(), target.strip(), instruction.strip())
    return InputPair(number, f"index.csv line {line}", f"{number:03d}", image, *texts)
