"""sdist compare: evaluated methods side by side, and their success curves."""

import argparse
from pathlib import Path

from ..errors import UserError
from .extras import need


def main(args: argparse.Namespace) -> int:
    need("compare", "matplotlib", "pandas")
    from ..evaluation.comparison import compare, write_comparison
    from ..evaluation.folder import read_evaluation
    from ..outputs import writable_folder

    names = [Path(folder).resolve().name for folder in args.evaluations]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"two folders are called {twice[0]}; a folder's name names its row")
    evaluations = {name: read_evaluation(Path(folder)) for name, folder in zip(names, args.evaluations, strict=True)}
    table = compare(evaluations, args.group)
    paths = write_comparison(writable_folder(args.output), evaluations, table, args.group)
    print(table.to_markdown(), *paths, sep="\n")
    return 0
