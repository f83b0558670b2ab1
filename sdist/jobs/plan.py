"""What a run has to do: rows of index.csv or pairs of a dataset, whose pictures are there, failed before, or are to be made."""

import argparse
import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..datasets.base import load_dataset
from ..datasets.index_csv import COLUMNS
from ..editors.loading import LoadedModels
from ..editors.score_distillation import check
from ..edits.outputs import failed_before, forget_error
from ..edits.request import Request
from ..errors import UserError
from ..files.storage import mapped, names
from ..registry import DATASETS
from .session import Session

WHOLE = (0, 1)  # the shard that is everything


@dataclass(frozen=True)
class Row:
    """One line of index.csv, or one pair of a dataset; `number` counts them from 0, `where` names it in messages."""

    number: int
    name: str
    where: str
    image: Path
    source: str
    target: str
    instruction: str


@dataclass(frozen=True)
class Task:
    """A picture to make; its own is read with its queue, so that no more than a queue is held."""

    name: str
    where: str
    request: Request
    size: tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """The pictures of a call, all of which are there, to be made, failed in an earlier call, or left by --limit."""

    names: list[str]
    there: int
    todo: list[Task]
    failed: int
    left: int
    sizes: Counter[tuple[int, int]]  # pictures of each size in all shards, made or not


def planned(
    args: argparse.Namespace, complain: Callable[[str], None], models: LoadedModels | None = None
) -> tuple[Session, Plan]:
    """The session of a run, with its model loaded if there are rows, and what it has to do."""
    rows = read_rows(args.input, complain, args.shard)
    session = Session(args, models)
    if rows:
        session.load()
    return session, plan(session, rows, args, complain)


def plan(session: Session, rows: list[Row], args: argparse.Namespace, complain: Callable[[str], None]) -> Plan:
    """What is to be made of the rows; `complain` hears of rows that cannot be edited, UserError if other results are there."""
    seeds = range(session.settings.seed, session.settings.seed + args.seeds)
    tasks, sizes = [], Counter[tuple[int, int]]()
    backbone = session.backbone if rows else None
    for row in rows:
        try:
            request = Request(
                row.image, row.source, row.target, seeds[0], instruction=row.instruction if session.instructed else ""
            )
            size = check(backbone, session.settings, request)
        except (OSError, ValueError) as error:  # a UserError is a ValueError; so is a path with a zero byte
            if in_shard(row.number, args.shard):
                complain(f"{row.where}: {error}")
        else:
            sizes[size] += len(seeds)
            if in_shard(row.number, args.shard):
                tasks += [Task(result_name(row, seed), row.where, replace(request, seed=seed), size) for seed in seeds]
    missing = tasks if args.overwrite else missing_of(session, tasks)
    failed = failed_before(session.folder)
    for name in failed.intersection(task.name for task in tasks).difference(task.name for task in missing):
        forget_error(session.folder, name)  # of a run that was killed just after it had made the picture
    todo = [task for task in missing if args.retry or args.overwrite or task.name not in failed]
    now = todo[: args.limit]
    counts = (len(tasks) - len(missing), now, len(missing) - len(todo), len(todo) - len(now))
    return Plan([task.name for task in tasks], *counts, sizes)


def missing_of(session: Session, tasks: list[Task]) -> list[Task]:
    """Those whose picture is not there as a whole: one listing says what is, then the cards of that are read."""
    there = names(session.folder)
    made = mapped(session.folder, lambda task: session.is_made(task.name, task.request, there), tasks)
    return [task for task, is_made in zip(tasks, made, strict=True) if not is_made]


def result_name(row: Row, seed: int) -> str:
    return f"{row.name}_seed{seed}"


def in_shard(number: int, shard: tuple[int, int]) -> bool:
    """Whether a row belongs to shard (i, n), which has rows i, i + n, ..."""
    return number % shard[1] == shard[0]


def dataset_of(source: str) -> str:
    """The name of a dataset for what --input names: FORMAT:DIR, or a folder with index.csv."""
    return source if source.partition(":")[0] in DATASETS.names() else f"index:{source}"


def read_rows(source: str, complain: Callable[[str], None], shard: tuple[int, int] = WHOLE) -> list[Row]:
    """The rows of what --input names; `complain` hears of lines of index.csv that cannot be used."""
    dataset = dataset_of(source)
    if dataset != source:
        return read_index(Path(source), complain, shard)
    return [
        Row(number, pair.key, f"{dataset}, pair {pair.key}", pair.image, pair.source, pair.target, pair.instruction)
        for number, pair in enumerate(load_dataset(dataset))
    ]


def read_index(folder: Path, complain: Callable[[str], None], shard: tuple[int, int] = WHOLE) -> list[Row]:
    """The rows of folder/index.csv that can be used; `complain` hears of each of the shard that cannot, by its line."""
    path = folder / "index.csv"
    if not path.is_file():
        raise UserError(f"{path} does not exist; it lists {', '.join(COLUMNS)}, with the images in {folder / 'images'}")
    csv.field_size_limit(2**31 - 1)
    rows: list[Row] = []
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(line.replace("\0", "\udc00") for line in file)  # Python 3.10 would end at a zero byte
        try:
            missing = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
            if missing:
                raise UserError(f"{path} has no column {', '.join(missing)}: needs {', '.join(COLUMNS)}, in UTF-8")
            for number, record in enumerate(reader):
                try:
                    rows.append(_read_row(folder, number, reader.line_num, record))
                except (OSError, ValueError, RuntimeError) as error:
                    if in_shard(number, shard):
                        complain(f"index.csv line {reader.line_num}: {error}")
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}, is not csv: {error}") from None
    return rows


def _read_row(folder: Path, number: int, line: int, record: dict) -> Row:
    name, source, target = fields = [record.get(c) for c in COLUMNS]
    if not name or None in fields or None in record:
        raise UserError(f"needs {len(COLUMNS)} fields: {', '.join(COLUMNS)}")
    instruction = record.get("instruction") or ""  # a column that may be there
    if any("\udc00" <= character <= "\udcff" for character in "".join([*fields, instruction])):
        raise UserError("is not UTF-8 text")
    images = (folder / "images").resolve()
    image = (images / name).resolve()
    if not image.is_relative_to(images):
        raise UserError(f"img_path {name!r} leaves the folder {folder / 'images'}")
    return Row(number, f"{number:03d}", f"index.csv line {line}", image, source.strip(), target.strip(), instruction.strip())
