"""sdist compare: evaluated methods side by side, and their success curves."""

import argparse
import logging
from pathlib import Path

from ..errors import UserError
from ..extras import need

log = logging.getLogger("sdist")


def main(args: argparse.Namespace) -> int:
    need("compare", "matplotlib", "pandas", "scipy", "tabulate")
    from ..edits.outputs import writable_folder
    from ..evaluation.comparison import compare, write_comparison
    from ..evaluation.folder import read_evaluation
    from ..evaluation.plots import choose_axes
    from ..evaluation.published import beside, load_published

    names = [Path(folder).resolve().name for folder in args.evaluations]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"two folders are called {twice[0]}; a folder's name names its row")
    evaluations = {name: read_evaluation(Path(folder)) for name, folder in zip(names, args.evaluations, strict=True)}
    published = [load_published(name) for name in args.published]
    measured = compare(evaluations, args.group)
    axes = choose_axes(list(measured), args.x, args.y)
    table = beside(measured, published, args.group)
    if published and next(iter(evaluations.values())).profile != "official":
        log.warning("published numbers were made as in --profile official; what was measured here has another profile")
    paths = write_comparison(writable_folder(args.output), evaluations, table, published, args.group, axes)
    if axes is None:
        log.info("no trade_off.png: the scores have none of how well the rest is kept; see --x and --y")
    print(table.to_markdown(disable_numparse=True), *paths, sep="\n")
    return 0
