"""sdist compare: evaluated methods side by side, and their success curves."""

import argparse
from pathlib import Path

from ..extras import need
from .arguments import Commands, plugin_argument, quiet_argument
from .messages import print_error


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "compare",
        help="evaluated methods side by side",
        description="One table, two plots and a page of the folders that sdist evaluate wrote; a folder's name names its row.",
    )
    command.add_argument("evaluations", nargs="+", metavar="DIR", help="a folder that sdist evaluate wrote")
    command.add_argument("--group", default="all", help="all (default) or a category")
    command.add_argument("--x", metavar="METRIC", help="of trade_off.png (default: the first measured of psnr, l1, clip_i)")
    command.add_argument("--y", metavar="METRIC", help="the same (default: of clip_edited, clip_auc, clip_t)")
    command.add_argument("--published", action="extend", nargs="+", default=[], metavar="TABLE",
                         help="published rows under the measured ones, such as lusd_table_2 (default: none)")  # fmt: skip
    command.add_argument("--output", type=Path, default=Path("comparison"), metavar="DIR",
                         help="of table, plots and page (default: comparison)")  # fmt: skip
    plugin_argument(command)
    quiet_argument(command)


def main(args: argparse.Namespace) -> int:
    need("compare", "matplotlib", "pandas", "scipy", "tabulate")
    from ..evaluation.comparison import compare_folders
    from ..evaluation.tables import to_markdown

    folders = [Path(folder) for folder in args.evaluations]
    table, files, problems = compare_folders(folders, args.output, args.published, args.group, args.x, args.y)
    print(to_markdown(table), *files, sep="\n")
    for problem in problems:
        print_error(problem)
    return 1 if problems else 0
