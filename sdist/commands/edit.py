"""sdist edit: one image, one or several seeds."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..jobs.counts import at_least_one
from .arguments import (
    Commands,
    edit_arguments,
    from_arguments,
    image_file,
    method_argument,
    method_of,
    settings_from,
    storage_folder,
)  # fmt: skip
from .checks import check_image, check_request, split_output

if TYPE_CHECKING:
    from ..edits.request import Request
    from ..jobs.session import Session

log = logging.getLogger("sdist")


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "edit",
        help="edit one image",
        description="Edits one image. Leaves IMAGE_METHOD_PROMPT_seedN.png with its run card inside, a panel (source, mask, "
        "edit) and the card as json; a request that was made already is not made again.",
    )
    command.add_argument("image", type=image_file, help="the photograph: a file of any usual format")
    command.add_argument("--source", default="", metavar="PROMPT", help="what the image shows (default: nothing is said)")
    command.add_argument("--target", default="", metavar="PROMPT",
                         help="what it should show instead (default: none, which needs --instruction)")  # fmt: skip
    command.add_argument(
        "--words",
        type=_words,
        default=(),
        metavar="A,B",
        help="words of the target prompt that the mask follows (default: the nouns that differ)",
    )
    command.add_argument(
        "--mask",
        type=image_file,
        metavar="IMAGE",
        help="white, or painted, where the edit may happen; as wide to high as the image (default: none)",
    )
    command.add_argument("--instruction", default="", metavar="TEXT",
                         help="what to do, for methods that read one (default: the target prompt)")  # fmt: skip
    command.add_argument("--output", type=storage_folder, default=Path("outputs"), metavar="DIR|URL|FILE.png",
                         help="folder of the results, or the result itself (default: outputs)")  # fmt: skip
    command.add_argument("--record", type=Path, metavar="DIR",
                         help="repeat the run and record draws and values as a trace for sdist verify (default: no)")  # fmt: skip
    command.add_argument("--json", action="store_true", help="print one JSON object per line for each image when it is there")
    method_argument(command)
    edit_arguments(command)


def _words(text: str) -> tuple[str, ...]:
    words = tuple(part.strip() for part in text.split(",") if part.strip())
    if not words:
        raise argparse.ArgumentTypeError(f"names no word, got {text!r}; leave it out for the nouns that differ")
    return words


def _record(folder: Path, session: "Session", request: "Request") -> None:
    """Runs one edit for its trace alone."""
    from ..traces.record import record
    from ..traces.trace import new_trace_folder, write_trace

    new_trace_folder(folder)
    log.info("recording a trace in %s", folder)
    write_trace(folder, record(session.method, session.prepare(request)))


def _requests(args: argparse.Namespace, first: int) -> "list[Request]":
    """One per seed, from the first."""
    from ..edits.request import Request

    seeds = range(first, first + args.seeds)
    return [Request(args.image, args.source, args.target, seed, args.words, args.mask, args.instruction) for seed in seeds]


def main(args: argparse.Namespace) -> int:
    args.method = method_of(args)
    at_least_one(seeds=args.seeds, steps=args.steps, parallel=args.parallel)
    if args.record is not None and args.seeds > 1:
        raise UserError("--record keeps the trace of one picture; --seeds must be 1")
    folder, file = split_output(args.output, args.seeds)
    check_image(args.image, args.mask)
    check_request(args.source, args.target, args.instruction, args.method)
    from ..editors.base import report_unread
    from ..editors.request_checks import check_before_loading
    from ..edits.outputs import check_inputs_stay, check_name
    from ..jobs.one_image import make_missing, named_file, named_results
    from ..jobs.options import SessionOptions
    from ..jobs.session import Session, refuse_foreign  # these import torch and diffusers

    settings = settings_from(args, args.method)
    refuse_foreign(settings, args.method, record=args.record)
    requests = _requests(args, settings.seed)
    check_before_loading(settings, requests[0], args.method)
    report_unread(settings.editor, requests[0])
    if file is not None:
        check_inputs_stay(folder, [file], requests[0].inputs)
    session = Session(from_arguments(SessionOptions, args, settings=settings, output=folder))
    if args.record is not None:
        _record(args.record, session, requests[0])
    named = named_results(session, requests, args.method) if file is None else [named_file(session, requests[0], file)]
    for one in named:
        check_name(session.folder, one.name)
    make_missing(session, named, args.image.stem)
    for one in named if not args.json else ():
        print(session.folder / f"{one.name}.png", session.folder / f"{one.name}_panel.png", sep="\n")
    return 0
