"""sdist run: a folder with index.csv, in queues; finished rows are skipped, bad rows are named and the rest goes on."""

import argparse
import csv
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from ..datasets.index_csv import COLUMNS
from ..editing import Job
from ..errors import UserError
from ..outputs import output_files
from .session import Session

log = logging.getLogger("sdist")

QUEUE = 64  # pictures whose latents and embeddings are held at once; how many are in flight is --batch


@dataclass(frozen=True)
class Row:
    """One line of index.csv; `number` counts rows from 0, `line` is the line of the file."""

    number: int
    line: int
    image: Path
    source: str
    target: str
    instruction: str


@dataclass(frozen=True)
class Task:
    """A picture to make; its own is read again with its queue, so that no more than a queue is held."""

    name: str
    job: Job
    size: tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """All pictures of a session, and those that are not there yet."""

    tasks: list[Task]
    missing: list[Task]

    @property
    def there(self) -> int:
        return len(self.tasks) - len(self.missing)


class Complaints:
    """Prints each problem when it is found, so that none is lost, and counts them; the same one again is no other."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    @property
    def count(self) -> int:
        return len(self._told)

    def __call__(self, text: str) -> None:
        if text in self._told:
            return
        self._told.add(text)
        print(f"sdist: error: {' '.join(text.split())}", file=sys.stderr, flush=True)


def main(args: argparse.Namespace) -> int:
    if args.seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {args.seeds}")
    complain = Complaints()
    rows = read_index(args.input, complain)
    session = Session(args)
    if rows:
        session.load()
    found = plan(session, rows, args, complain)
    done = edit_all(session, found.missing, complain)
    print(f"{done} of {len(found.tasks)} pictures made, {found.there} were there, {complain.count} problems")
    return 2 if complain.count else 0


def plan(session: Session, rows: list[Row], args: argparse.Namespace, complain: Callable[[str], None]) -> Plan:
    """What is to be made of the rows; `complain` hears of rows that cannot be edited, UserError if other results are there."""
    seeds = range(session.settings.seed, session.settings.seed + args.seeds)
    tasks = []
    for row in rows:
        try:
            job = Job(row.image, row.source, row.target, seeds[0], instruction=row.instruction if session.instructed else "")
            size = session.prepare(job).image.size
        except (OSError, ValueError) as error:  # a UserError is a ValueError; so is a path with a zero byte
            complain(f"index.csv line {row.line}: {error}")
        else:
            tasks += [Task(result_name(row, seed), replace(job, seed=seed), size) for seed in seeds]
    return Plan(tasks, [task for task in tasks if args.overwrite or not session.is_made(task.name, task.job)])


def result_name(row: Row, seed: int) -> str:
    return f"{row.number:03d}_seed{seed}"


def edit_all(session: Session, tasks: list[Task], complain: Callable[[str], None]) -> int:
    """Edits what is missing, and says how many pictures were made."""
    for queue in queues(tasks):
        label = f"{queue[0].name}-{queue[-1].name}"
        log.info("%d pictures, %s", len(queue), label)
        files = [output_files(session.folder, task.name) for task in queue]
        try:
            session.edit([session.prepare(task.job) for task in queue], files, label)
        except FloatingPointError as error:
            complain(str(error))
    return session.made


def queues(tasks: list[Task]) -> Iterator[list[Task]]:
    """Groups of at most QUEUE pictures of equal width and height, in the order of the file within each size."""
    by_size = sorted(tasks, key=lambda task: task.size)
    for _, group in groupby(by_size, key=lambda task: task.size):
        same = list(group)
        yield from (same[i : i + QUEUE] for i in range(0, len(same), QUEUE))


def read_index(folder: Path, complain: Callable[[str], None]) -> list[Row]:
    """The rows of folder/index.csv that can be used; `complain` hears of each that cannot, by its line."""
    path = folder / "index.csv"
    if not path.is_file():
        raise UserError(f"{path} does not exist; it lists {', '.join(COLUMNS)}, with the images in {folder / 'images'}")
    csv.field_size_limit(2**31 - 1)
    rows: list[Row] = []
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        try:
            missing = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
            if missing:
                raise UserError(f"{path} has no column {', '.join(missing)}: needs {', '.join(COLUMNS)}, in UTF-8")
            for number, record in enumerate(reader):
                try:
                    rows.append(_read_row(folder, number, reader.line_num, record))
                except (OSError, ValueError, RuntimeError) as error:
                    complain(f"index.csv line {reader.line_num}: {error}")
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}, is not csv: {error}") from None
    return rows


def _read_row(folder: Path, number: int, line: int, record: dict) -> Row:
    name, source, target = fields = [record.get(c) for c in COLUMNS]
    if not name or None in fields or None in record:
        raise UserError(f"needs {len(COLUMNS)} fields: {', '.join(COLUMNS)}")
    instruction = record.get("instruction") or ""  # a column that may be there
    if any("\udc80" <= character <= "\udcff" for character in "".join([*fields, instruction])):
        raise UserError("is not UTF-8")
    images = (folder / "images").resolve()
    image = (images / name).resolve()
    if not image.is_relative_to(images):
        raise UserError(f"img_path {name!r} leaves the folder {folder / 'images'}")
    return Row(number, line, image, source.strip(), target.strip(), instruction.strip())
