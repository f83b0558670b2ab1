"""The pairs of --input: of a folder with index.csv, row by row, or of a dataset."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from ..datasets.base import load_dataset
from ..edits.request import Request
from ..errors import UserError, unknown
from ..files.csv_rows import Row, read_rows
from ..files.index_file import COLUMNS, MORE, index_file
from ..files.named import file_in, near_file
from ..files.names import as_name, unique_names
from ..registry import DATASETS
from .options import WHOLE
from .problems import Report

KIND = re.compile(r"[A-Za-z][\w-]+")  # what a format may be called; one letter is a drive
HINTS = 20  # bad rows at the beginning that are told which file may be meant: in a folder of 10,000 that takes half a second each


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
    mask: Path | None = None

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Its files."""
        return (self.image,) if self.mask is None else (self.image, self.mask)

    def request(self, seed: int, reads: Collection[str]) -> Request:
        """What is asked for, of what a method reads. Raises UserError for prompts that say nothing."""
        instruction, mask = (self.instruction if "instruction" in reads else ""), (self.mask if "mask" in reads else None)
        return Request(self.image, self.source, self.target, seed, mask=mask, instruction=instruction)


def in_shard(number: int, shard: tuple[int, int]) -> bool:
    """Whether a pair belongs to shard (i, n), which has the pairs i, i + n, ..."""
    return number % shard[1] == shard[0]


def dataset_of(source: str) -> str:
    """The name of a dataset for what --input names: FORMAT:DIR, or a folder with index.csv.

    Raises UserError for what is neither, such as a format that is misspelt.
    """
    if "://" in source:
        raise UserError(f"--input {source} is a URL, and inputs are local folders: copy it here first")
    kind, colon, _ = source.partition(":")
    if kind in DATASETS.names() and (colon or not Path(source).exists()):
        return source
    if colon and KIND.fullmatch(kind) and not Path(source).exists():
        raise unknown("dataset format", kind, DATASETS.names(), f"--input {source}")
    return f"index:{source}"


def read_pairs(source: str, report: Report, shard: tuple[int, int] = WHOLE) -> list[InputPair]:
    """The pairs of what --input names; `report` hears of rows of index.csv that cannot be used."""
    dataset = dataset_of(source)
    kind, _, folder = dataset.partition(":")
    if kind == "index" and folder:
        return _named_by_image(read_index(Path(folder), report, shard))
    return [
        InputPair(number, f"{dataset}, pair {pair.key}", pair.key, pair.image, pair.source, pair.target, pair.instruction)
        for number, pair in enumerate(load_dataset(dataset))
    ]


def _named_by_image(pairs: list[InputPair]) -> list[InputPair]:
    """With the stems of their images as keys, numbered where an image is there more than once."""
    keys = unique_names([as_name(pair.image.stem) for pair in pairs])
    return [replace(pair, key=key) for pair, key in zip(pairs, keys, strict=True)]


def read_index(folder: Path, report: Report, shard: tuple[int, int] = WHOLE) -> list[InputPair]:
    """The pairs of folder/index.csv; `report` hears of each row of the shard that cannot be used, by its line."""
    path = index_file(folder)
    pairs, count = list[InputPair](), 0
    for number, row in enumerate(read_rows(path, COLUMNS, MORE)):
        count += 1
        try:
            pairs.append(_read_row(folder.resolve(), number, row, hint=count - len(pairs) <= HINTS))
        except UserError as error:
            if in_shard(number, shard):
                report(f"index.csv {row.where}: {error}")
    if not count:
        raise UserError(f"{path} lists no image: it has a header and nothing below")
    return pairs


def _read_row(folder: Path, number: int, row: Row, hint: bool) -> InputPair:
    if row.problem:
        raise UserError(row.problem)
    name, source, target = (row.fields[column] for column in COLUMNS)
    if not name:
        raise UserError("img_path is empty; name a file in images/")
    image, masked = _there(folder / "images", name, "image", hint), row.fields.get("mask")  # a column that may be there
    mask = _there(folder / "masks", masked, "mask", hint) if masked else None
    instruction = row.fields.get("instruction", "")
    return InputPair(number, f"index.csv {row.where}", f"{number:03d}", image, source, target, instruction, mask)


def _there(folder: Path, name: str, what: str, hint: bool) -> Path:
    """The file of that name. Raises UserError if it is not there."""
    path = file_in(folder, name)
    if not path.exists():
        raise UserError(f"{what} {name!r} does not exist in {folder}{near_file(path) if hint else ''}")
    return path.resolve()
