"""sdist run: a folder with index.csv; finished rows are skipped, bad rows are named and the rest goes on."""

import argparse
import json

from ..config.methods import find_yaml
from ..jobs.counts import at_least_one
from ..jobs.interrupts import Interruption
from .arguments import (
    Commands,
    edit_arguments,
    from_arguments,
    method_argument,
    method_of,
    settings_from,
    share_arguments,
    storage_folder,
)  # fmt: skip
from .checks import check_input
from .messages import print_error


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "run",
        help="edit the images that a folder's index.csv lists",
        description="Edits every row of DIR/index.csv (img_path, source_prompt, target_prompt, for instruct_pix2pix also "
        "instruction, and mask if there are any; images in DIR/images, masks in DIR/masks).",
    )
    command.add_argument("--input", required=True, metavar="DIR|FORMAT:DIR", help="or a dataset as for sdist evaluate")
    command.add_argument("--output", type=storage_folder, required=True, metavar="DIR|URL",
                         help="a URL is such as s3://bucket/results")  # fmt: skip
    method_argument(command)
    share_arguments(command)
    command.add_argument("--devices", type=_devices, metavar="N|auto",
                         help="N processes here, one per GPU; auto: all GPUs (default: this process alone)")  # fmt: skip
    command.add_argument("--engine", choices=("local", "ray"), default="local",
                         help="ray: the actors of a Ray cluster, see docs/scale.md (default: local)")  # fmt: skip
    command.add_argument("--dry-run", action="store_true", help="say what would be made, and write nothing")
    command.add_argument("--json", action="store_true",
                         help="print a JSON object per line: each image when it is there, and the totals at the end")  # fmt: skip
    command.add_argument("--workers", type=int, metavar="N", help="actors (default: one per GPU, or one per machine without)")
    edit_arguments(command)


def _devices(text: str) -> int | str:
    if text != "auto" and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be auto or a number from 1, got {text!r}")
    return text if text == "auto" else int(text)


def main(args: argparse.Namespace) -> int:
    args.method = method_of(args)
    at_least_one(seeds=args.seeds, limit=args.limit, steps=args.steps, parallel=args.parallel, workers=args.workers)
    check_input(args.input)
    find_yaml("method", args.method)
    from ..jobs.options import RunOptions
    from ..jobs.run import make
    from ..jobs.summary import summary, write_problems

    interrupt, why_left = None, "--dry-run" if args.dry_run else "--limit"
    try:
        result = make(from_arguments(RunOptions, args, settings=settings_from(args, args.method)), print_error)
    except Interruption as ended:
        if ended.result is None:
            raise
        interrupt, result, why_left = ended, ended.result, "the same command goes on"
    file = None if args.dry_run else write_problems(result.folder, result.problems)
    if args.json:
        totals = {**result._asdict(), "folder": str(result.folder), "seconds": round(result.seconds, 3)}
        print(json.dumps({"status": "total", **totals}))
    else:
        print(*summary([result], result.problems, file, why_left), sep="\n")
    if interrupt is not None:
        raise interrupt
    return 2 if result.problems else 0
