"""index.csv with img_path, source_prompt, target_prompt and images/: the format of LUSD's release and of `sdist run`."""

import csv
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .base import DATASETS, Dataset, Pair, inside

COLUMNS = ("img_path", "source_prompt", "target_prompt")


@DATASETS.register("index")
@dataclass(frozen=True)
class IndexCsv(Dataset):
    """A row is named by its number, `000`, as results are. Read if there: category, caption, truth."""

    def load(self, folder: Path) -> list[Pair]:
        path = folder / "index.csv"
        return [_pair(folder, number, record, path) for number, record in enumerate(read_csv(path, COLUMNS))]


def _pair(folder: Path, number: int, record: dict[str, str], path: Path) -> Pair:
    images, truth = folder / "images", record.get("truth") or None
    name, source, target = (record[column].strip() for column in COLUMNS)
    if not name or not target:
        raise UserError(f"{path}, row {number}: img_path and target_prompt must not be empty")
    return Pair(
        f"{number:03d}", inside(images, name), source, target, record.get("category") or "", record.get("caption") or "",
        truth if truth is None else inside(images, truth),
    )  # fmt: skip


def read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a csv by column; UserError if it is not there, is not UTF-8, or lacks one of the columns or a field."""
    csv.field_size_limit(2**31 - 1)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path} has no column {', '.join(missing)}; it needs {', '.join(columns)}")
            rows = list(reader)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    for number, row in enumerate(rows):
        if any(row[column] is None for column in columns) or None in row:
            raise UserError(f"{path}, row {number}: has not as many fields as the header")
    return rows
