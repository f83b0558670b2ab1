"""What a set of edits is: a list of pairs with keys that occur once, loaded by the name of its format and its folder."""

import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..errors import UserError
from ..errors.arguments import check_fields, shown
from ..faults import naming
from ..files.csv_rows import read_rows
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
    def named(self) -> str:
        """For messages."""
        return self.key if self.image.stem == self.key else f"{self.key} ({self.image.name})"

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
    kind, colon, folder = name.partition(":")
    if not colon and Path(name).is_dir():
        raise UserError(
            f"dataset {name} names no format: index:{name} has an index.csv, others are {', '.join(DATASETS.names())}"
        )
    dataset = DATASETS.get(kind)()
    if not folder:
        raise UserError(f"dataset {name!r} names no folder: {kind}:FOLDER")
    if dataset.local and not Path(folder).is_dir():
        what = "is a file; give the folder around it" if Path(folder).exists() else "does not exist"
        raise UserError(f"dataset folder {folder} {what}")
    with naming("dataset", dataset):
        pairs = list(dataset.load(Path(folder), profile))
    check(pairs, folder)
    return pairs


def check(pairs: Iterable[Pair], where: object) -> None:
    """Raises UserError unless every key occurs once and some image is there; one that is missing costs its pair alone."""
    pairs = list(pairs)
    for number, pair in enumerate(pairs):
        if not isinstance(pair, Pair):
            raise UserError(f"{where}: pair {number} is {shown(pair)}, must be a Pair")
        check_fields(pair, f"{where}, pair {number}: ")
    if not pairs:
        raise UserError(f"{where} has no edit pairs")
    twice = [key for key, count in Counter(pair.key for pair in pairs).items() if count > 1]
    if twice:
        raise UserError(f"{where}: {', '.join(twice[:3])} stand there more than once")
    odd = [pair.key for pair in pairs if not KEY.fullmatch(pair.key)]
    if odd:
        raise UserError(f"{where}: {odd[0]!r} cannot name a file")
    if not any(pair.image.is_file() for pair in pairs):
        raise UserError(f"{where}: none of the {len(pairs)} pictures is there, the first is {pairs[0].image}")


def read_json(path: Path, kind: type = dict) -> Any:
    """The value in a json file. Raises UserError if there is none or if it is of another kind."""
    try:
        value = json.loads(path.read_bytes())  # UTF-8, 16 or 32, with or without a mark
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, kind):
        raise UserError(f"{path} holds a {type(value).__name__}, needs a {kind.__name__}")
    return value


def read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a csv by column, see `read_rows`. Raises UserError for one that cannot be used."""
    rows = list(read_rows(path, columns))
    for row in rows:
        if row.problem:
            raise UserError(f"{path}, {row.where}: {row.problem}")
    return [row.fields for row in rows]


def text(record: Mapping[str, Any], name: str, where: object) -> str:
    """A text of a record. Raises UserError if it is not there."""
    value = record.get(name)
    if not isinstance(value, str):
        raise UserError(f"{where} has no text {name!r}")
    return value
