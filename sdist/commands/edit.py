"""sdist edit: one image, one or several seeds."""

import argparse
import logging
from pathlib import Path

from ..errors import UserError
from .arguments import (
    Commands,
    edit_arguments,
    from_arguments,
    method_argument,
    picture_file,
    settings_from,
    storage_folder,
)  # fmt: skip

log = logging.getLogger("sdist")


def add_to(commands: Commands) -> None:
    command = commands.add_parser("edit", help="edit one image", description="Edits one image.")
    command.add_argument("image", type=picture_file)
    command.add_argument("--source", default="", metavar="PROMPT", help="what the image shows (may be empty)")
    command.add_argument("--target", default="", metavar="PROMPT", help="what it should show (or say --instruction)")
    command.add_argument("--words", type=_words, default=(), metavar="A,B", help="words that the mask follows")
    command.add_argument("--mask", type=picture_file, metavar="IMAGE", help="white, or painted, where the edit may happen")
    command.add_argument("--instruction", default="", metavar="TEXT",
                         help="what to do, for methods that read one (default: the target prompt)")  # fmt: skip
    command.add_argument("--output", type=storage_folder, default=Path("outputs"), metavar="DIR|URL")
    command.add_argument("--record", type=Path, metavar="DIR",
                         help="run once more and keep draws and quantities as a trace (see: sdist verify)")  # fmt: skip
    method_argument(command)
    edit_arguments(command)


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def main(args: argparse.Namespace) -> int:
    from ..edits.request import Request
    from ..jobs.options import SessionOptions, at_least_one
    from ..jobs.session import Session, refuse_foreign  # these import torch and diffusers
    from ..traces.record import record
    from ..traces.trace import new_trace_folder, write_trace

    at_least_one(seeds=args.seeds)
    if args.record is not None and args.seeds > 1:
        raise UserError("--record keeps the trace of one picture; --seeds must be 1")
    settings = settings_from(args, args.method)
    refuse_foreign(settings, args.method, record=args.record)
    session = Session(from_arguments(SessionOptions, args, settings=settings))
    if args.record is not None:
        new_trace_folder(args.record)
    requests = [
        Request(args.image, args.source, args.target, seed, args.words, args.mask, args.instruction)
        for seed in range(settings.seed, settings.seed + args.seeds)
    ]
    files = session.output_files([f"{args.image.stem}_seed{request.seed}" for request in requests])
    prepared = [session.prepare(request) for request in requests]
    if args.record is not None:
        log.info("recording a trace in %s", args.record)
        write_trace(args.record, record(session.method, prepared[0]))
    session.edit(prepared, files, args.image.stem)
    for paths in files:
        print(paths["image"], paths["panel"], sep="\n")
    return 0
