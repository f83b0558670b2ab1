"""What a set of edits is: a list of pairs with keys that occur once, loaded by the name of its format and its folder."""

import csv
import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..errors import UserError
from ..metrics.pixels import Mask
from ..metrics.profile import Profile
from ..registry import DATASETS

KEY = re.compile(r"[\w.-]*\w")


@dataclass(frozen=True)
class Pair:
    """One edit that is asked for; `key` names it, and its result is the image of that name."""

    key: str
    image: Path
    source: str
    target: str
    category: str = ""
    caption: str = ""  # of the wanted image, where a benchmark scores against another text than the prompt
    truth: Path | None = None  # the wanted image, where the benchmark has one
    mask: Callable[[], Mask] | None = None  # true where the edit may happen; decoded when asked for
    instruction: str = ""  # the edit as an order, where the format has one
    counted: int = 1  # how often it enters means: in the official profile as often as the benchmark's own tables have it

    @property
    def text(self) -> str:
        """What the edited image is compared with."""
        return self.caption or self.target


class Dataset(ABC):
    """A published format; `local` says that it is read from a folder."""

    local: ClassVar[bool] = True

    @abstractmethod
    def load(self, folder: Path, profile: Profile = "clean") -> list[Pair]:
        """All pairs, in the order of the format's own list. Raises a UserError that names a file or key that is missing or odd.

        official: with the known errors of the published lists. clean: without.
        """


def load_dataset(name: str, profile: Profile = "clean") -> list[Pair]:
    """The pairs of "FORMAT:FOLDER", such as "pie_bench:data". Raises UserError for what is unknown, missing or there twice."""
    kind, _, folder = name.partition(":")
    dataset = DATASETS.get(kind)()
    if not folder:
        raise UserError(f"dataset {name!r} names no folder: {kind}:FOLDER")
    if dataset.local and not Path(folder).is_dir():
        raise UserError(f"dataset folder {folder} does not exist")
    pairs = dataset.load(Path(folder), profile)
    check(pairs, folder)
    return pairs


def check(pairs: Iterable[Pair], where: object) -> None:
    """Raises UserError unless every key occurs once and every file is there."""
    pairs = list(pairs)
    if not pairs:
        raise UserError(f"{where} has no edit pairs")
    twice = [key for key, count in Counter(pair.key for pair in pairs).items() if count > 1]
    if twice:
        raise UserError(f"{where}: {', '.join(twice[:3])} stand there more than once")
    odd = [pair.key for pair in pairs if not KEY.fullmatch(pair.key)]
    if odd:
        raise UserError(f"{where}: {odd[0]!r} cannot name a file")
    missing = [path for pair in pairs for path in (pair.image, pair.truth) if path is not None and not path.is_file()]
    if missing:
        raise UserError(f"{where}: {len(missing)} pictures are missing, the first is {missing[0]}")


def inside(folder: Path, name: str) -> Path:
    """folder/name. Raises UserError if that is not inside the folder."""
    path = folder / name
    if not name or "\0" in name or not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{name!r} is not a file inside {folder}")
    return path


def read_json(path: Path, kind: type = dict) -> Any:
    """The value in a json file. Raises UserError if there is none or if it is of another kind."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, kind):
        raise UserError(f"{path} holds a {type(value).__name__}, needs a {kind.__name__}")
    return value


def read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a csv by column. Raises UserError if it is not there, is not UTF-8, or lacks one of the columns or a field."""
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


def text(record: Mapping[str, Any], name: str, where: object) -> str:
    """A text of a record. Raises UserError if it is not there."""
    value = record.get(name)
    if not isinstance(value, str):
        raise UserError(f"{where} has no text {name!r}")
    return value
