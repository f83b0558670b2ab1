"""sdist run: a folder with index.csv, in batches; finished rows are skipped, bad rows are named and the rest goes on."""

import argparse
import csv
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ..errors import UserError

log = logging.getLogger("sdist")

COLUMNS = ("img_path", "source_prompt", "target_prompt")


@dataclass(frozen=True)
class Row:
    """One line of index.csv; `number` counts rows from 0, `line` is the line of the file."""

    number: int
    line: int
    image: Path
    source: str
    target: str


def main(args: argparse.Namespace) -> int:
    if args.batch < 1 or args.seeds < 1:
        raise UserError(f"--batch and --seeds must be at least 1, got {args.batch} and {args.seeds}")
    rows, errors = read_index(args.input)
    from ..editing import Job
    from .session import Session  # these import torch and diffusers

    session = Session(args)
    prepared = []
    for row in rows:
        try:
            for seed in range(session.settings.seed, session.settings.seed + args.seeds):
                job = Job(row.image, row.source, row.target, seed)
                prepared.append((f"{row.number:03d}_seed{seed}", session.prepare(job)))
        except UserError as error:
            errors.append(f"line {row.line}: {error}")
    done = _edit_all(session, prepared, args)
    for error in errors:
        print(f"sdist: error: index.csv {' '.join(error.split())}", file=sys.stderr)
    print(f"{done} of {len(prepared)} pictures made, {len(prepared) - done} were there, {len(errors)} bad rows")
    return 2 if errors else 0


def _edit_all(session, prepared, args: argparse.Namespace) -> int:
    """Edits batches that miss a result. A batch is always the same rows, so a resumed run repeats its rounding too."""
    from ..outputs import output_files

    done = 0
    for batch in batches(prepared, args.batch):
        files = [output_files(session.folder, name) for name, _ in batch]
        missing = [args.overwrite or not own["image"].exists() for own in files]
        if any(missing):
            names = [name for name, _ in batch]
            log.info("rows %s to %s", names[0], names[-1])
            session.edit([p for _, p in batch], files, f"{names[0]}-{names[-1]}", missing)
            done += sum(missing)
    return done


def batches(prepared, size: int) -> Iterator[list]:
    """Groups of at most `size` pictures of equal width and height, in the order of the file within each size."""
    by_size = sorted(prepared, key=lambda item: item[1].image.size)
    for _, group in groupby(by_size, key=lambda item: item[1].image.size):
        same = list(group)
        yield from (same[i : i + size] for i in range(0, len(same), size))


def read_index(folder: Path) -> tuple[list[Row], list[str]]:
    """The rows of folder/index.csv that can be used, and a message for each that cannot, which names its line."""
    path = folder / "index.csv"
    if not path.is_file():
        raise UserError(f"{path} does not exist; it lists {', '.join(COLUMNS)}, with the images in {folder / 'images'}")
    rows: list[Row] = []
    errors: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
            if missing:
                raise UserError(f"{path} has no column {', '.join(missing)}: needs {', '.join(COLUMNS)}")
            for number, record in enumerate(reader):
                _read_row(folder, number, reader.line_num, record, rows, errors)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a csv file in UTF-8: {error}") from None
    return rows, errors


def _read_row(folder: Path, number: int, line: int, record: dict, rows: list[Row], errors: list[str]) -> None:
    name, source, target = (record.get(c) for c in COLUMNS)
    if not name or target is None or source is None or None in record:
        errors.append(f"line {line}: needs {len(COLUMNS)} fields: {', '.join(COLUMNS)}")
        return
    images = (folder / "images").resolve()
    image = (images / name).resolve()
    if not image.is_relative_to(images):
        errors.append(f"line {line}: img_path {name!r} leaves the folder {folder / 'images'}")
        return
    rows.append(Row(number, line, image, source.strip(), target.strip()))
