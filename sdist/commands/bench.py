"""sdist bench: LUSD here against a plain loop in the way of the released code, on the same machine and the same edits."""

import argparse
import json

from ..errors import UserError
from ..jobs.console import print_line
from .arguments import Commands, json_argument, model_arguments, settings_from


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "bench",
        help="time LUSD against a plain loop on this machine",
        description="Makes the same edits with the plain loop, with ours one by one and with ours as a queue, checks that the "
        "same draws were accepted, and prints times, memory and ratios.",
    )
    command.add_argument("--edits", type=int, default=16, metavar="N", help="edits of drawn scenes (default: 16)")
    command.add_argument("--repetitions", type=int, default=5, metavar="N", help="passes of each kind, in turns (default: 5)")
    model_arguments(command)
    json_argument(command)


def main(args: argparse.Namespace) -> int:
    if min(args.edits, args.repetitions) < 1:
        raise UserError(f"--edits and --repetitions must be at least 1, got {args.edits} and {args.repetitions}")
    from ..benchmark.measure import as_lines, measure

    settings = settings_from(args, "lusd")
    figures = measure(settings, args.edits, args.repetitions, args.parallel, print_line)
    print(json.dumps(figures, indent=1) if args.json else "\n".join(as_lines(figures)))
    if not figures["agree"]:
        raise UserError("the accept sequences differ, so the ratios mean nothing; is the precision too coarse for the filter?")
    return 0
