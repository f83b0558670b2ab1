"""sdist evaluate: scores of a folder of results against a set of edits."""

import argparse
import logging
from pathlib import Path

from ..extras import need
from .arguments import Commands, from_arguments, plugin_argument, quiet_argument, score_arguments
from .messages import print_error

log = logging.getLogger("sdist")


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "evaluate",
        help="score results with the metrics of MagicBrush, LUSD and PIE-Bench",
        description="Scores every result KEY.png or KEY_seedN.png against its pair, and summarizes with 95 % intervals.",
    )
    command.add_argument("--dataset", required=True, metavar="FORMAT:DIR",
                         help="a format, such as index or pie_bench, and its folder, see docs/evaluation.md")  # fmt: skip
    command.add_argument("--results", type=Path, required=True, metavar="DIR", help="the edited images, anywhere in it")
    command.add_argument("--output", type=Path, metavar="DIR",
                         help="of scores, tables and a page (default: evaluations/NAME of the folder of results)")  # fmt: skip
    command.add_argument("--clip", default="openai/clip-vit-base-patch32", metavar="ID|DIR",
                         help="tinyworld is embedded (default: openai/clip-vit-base-patch32)")  # fmt: skip
    score_arguments(command)
    command.add_argument("--lpips", type=Path, metavar="FILE", help="weights of LPIPS as safetensors (default: no LPIPS)")
    command.add_argument("--seed", type=int, default=0, help="of the results KEY_seedN.png (default: 0)")
    command.add_argument("--allow-missing", action="store_true", help="a missing result is undefined instead of an error")
    command.add_argument(
        "--overwrite", action="store_true", help="replace the scores of another evaluation, as a folder named by --output does"
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    command.add_argument("--json", action="store_true", help="print JSON")
    plugin_argument(command)
    quiet_argument(command)


def main(args: argparse.Namespace) -> int:
    need("evaluate", "pandas", "pyarrow", "scipy", "tabulate")
    from ..distillation.progress import steps_bar
    from ..evaluation.evaluate import EvaluationOptions, default_output
    from ..evaluation.evaluator import Evaluator
    from ..evaluation.tables import format_table

    args.overwrite |= args.output is not None  # a folder that is named is the user's choice, and what it had is said
    evaluator = Evaluator(args.dataset, from_arguments(EvaluationOptions, args))
    with steps_bar(len(evaluator.pairs), "scored", "pair") as bar:
        result = evaluator(args.results, args.output or default_output(args.results), args.seed, bar.update)
    summary = result.summary
    print(summary.reset_index().to_json(orient="records", indent=1) if args.json else format_table(summary).T.to_string())
    log.info("written: %s", ", ".join(map(str, result.files)))
    for problem in result.problems:
        print_error(problem)
    return 1 if result.problems else 0
