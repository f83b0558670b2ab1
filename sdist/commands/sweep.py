"""sdist sweep: sdist run for every variant of a sweep; then a sheet of all images, and their tables. Or a search among them."""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING

from ..config.methods import find_yaml
from ..errors import UserError
from ..files.storage import need_local
from ..jobs.counts import at_least_one
from .arguments import (
    Commands,
    edit_arguments,
    from_arguments,
    score_arguments,
    settings_from,
    share_arguments,
    storage_folder,
)  # fmt: skip
from .checks import check_input
from .messages import print_error

if TYPE_CHECKING:
    from ..config.settings import Settings
    from ..config.sweep import Sweep, Variant
    from ..evaluation.evaluate import EvaluationOptions
    from ..jobs.sweep import SweepOptions


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "sweep",
        help="edit a folder with every variant of an ablation or grid, or search for the best",
        description="Does what sdist run does for every variant, into OUTPUT/VARIANT, and puts all of them into OUTPUT/grid.png; "
        "with --clip evaluates and compares them too. Skips what is there. A search does so in rounds; the best of each go on.",
    )
    command.add_argument("sweep", metavar="FILE.yaml|NAME", help="variants, a grid or a search, see docs/sweeps.md")
    command.add_argument("--input", metavar="DIR|FORMAT:DIR", help="as for sdist run (default: none, which --list does not need)")
    command.add_argument("--output", type=storage_folder, metavar="DIR", help="of all variants (default: none, as for --input)")
    command.add_argument("--list", action="store_true", help="print the variants and what they change, and make nothing")
    command.add_argument("--first", type=int, metavar="N", help="take the first N rows of index.csv only (default: all)")
    command.add_argument("--rows", type=int, default=8, metavar="N", help="pairs in grid.png (default: 8)")
    command.add_argument("--clip", metavar="ID|DIR", help="evaluate with this CLIP, see: sdist evaluate (default: no evaluation)")
    score_arguments(command)
    share_arguments(command)
    edit_arguments(command)


def main(args: argparse.Namespace) -> int:
    if not args.list and (args.input is None or args.output is None):
        raise UserError("sdist sweep needs --input and --output, or --list")
    if args.output is not None:
        need_local(args.output, "sdist sweep")
    if args.clip is None and (args.dino or args.cache):
        raise UserError("--dino and --cache belong to an evaluation, which --clip asks for")
    if args.input is not None:
        at_least_one(rows=args.rows, first=args.first, steps=args.steps, parallel=args.parallel)
        check_input(args.input)
    if not args.sweep.endswith((".yaml", ".yml")):
        find_yaml("sweep", args.sweep)
    from ..config.sweep import Variant, read_sweep
    from ..jobs.problems import ProblemReporter
    from ..jobs.search import run_search
    from ..jobs.summary import summary, write_problems
    from ..jobs.sweep import listing, run_sweep, variant_settings

    sweep = read_sweep(args.sweep)
    settings = variant_settings(sweep, lambda variant: _settings(args, sweep, variant))
    if args.list:
        base = _settings(args, sweep, Variant("", sweep.base)) if sweep.base else None
        print(*listing(sweep, settings, base), sep="\n")
        return 0
    report, options, say = ProblemReporter(print_error), _options(args, sweep, settings), partial(print, flush=True)
    if sweep.search is None:
        results = run_sweep(options, report, say)
    else:
        results = run_search(options, sweep.search, _evaluation(args), report, say)
    print(*summary(results, report.problems, write_problems(args.output, report.problems)), sep="\n")
    return 2 if report.problems else 0


def _settings(args: argparse.Namespace, sweep: Sweep, variant: Variant) -> Settings:
    group = (f"log.group={json.dumps(sweep.name)}",) if args.log != "none" else ()
    return settings_from(args, variant.method, (*group, *variant.overrides))


def _options(args: argparse.Namespace, sweep: Sweep, settings: dict[str, Settings]) -> SweepOptions:
    from ..jobs.options import RunOptions
    from ..jobs.sweep import SweepOptions

    runs = [
        from_arguments(RunOptions, args, method=v.method, settings=settings[v.name], name=v.name, output=args.output / v.name)
        for v in sweep.variants
    ]
    evaluation = _evaluation(args) if args.clip else None
    return from_arguments(SweepOptions, args, sweep=sweep, runs=runs, evaluation=evaluation)


def _evaluation(args: argparse.Namespace) -> EvaluationOptions:
    """Of what is there."""
    from ..evaluation.evaluate import EvaluationOptions

    return from_arguments(EvaluationOptions, args, device=args.device or "auto", allow_missing=True, overwrite=True)
