"""sdist run: a folder with index.csv; finished rows are skipped, bad rows are named and the rest goes on."""

import argparse

from .arguments import (
    Commands,
    edit_arguments,
    from_arguments,
    method_argument,
    settings_from,
    share_arguments,
    storage_folder,
)  # fmt: skip
from .messages import print_error


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "run",
        help="edit a folder of images listed in index.csv",
        description="Edits every row of DIR/index.csv (img_path, source_prompt, target_prompt, for instruct_pix2pix also "
        "instruction; images in DIR/images).",
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
    command.add_argument("--workers", type=int, metavar="N", help="actors (default: one per GPU, or one per machine without)")
    edit_arguments(command)


def _devices(text: str) -> int | str:
    if text != "auto" and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be auto or a number from 1, got {text!r}")
    return text if text == "auto" else int(text)


def main(args: argparse.Namespace) -> int:
    from ..jobs.options import RunOptions
    from ..jobs.run import make
    from ..jobs.summary import summary

    result = make(from_arguments(RunOptions, args, settings=settings_from(args, args.method)), print_error)
    print(*summary([result], len(result.problems)), sep="\n")
    return 2 if result.problems else 0
