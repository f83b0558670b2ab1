"""Several evaluations in one table, in pictures and on one page."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..edits.outputs import writable_folder
from ..errors import UserError
from ..files.storage import write_atomic
from .folder import Evaluation, read_evaluation
from .page import report_page
from .plots import choose_axes, success_curves, trade_off
from .published import Published, beside, load_published, to_latex
from .summary import ALL
from .tables import told

log = logging.getLogger("sdist")


def compare(evaluations: Mapping[str, Evaluation], group: str = ALL) -> pd.DataFrame:
    """A row an evaluation, a column a metric; UserError if they scored other pairs, or if one has no such group."""
    (first, one), *others = evaluations.items()
    for name, other in others:
        if other.profile != one.profile:
            raise UserError(f"{first} has profile {one.profile}, {name} {other.profile}: their scores cannot be compared")
        if _asked(other) != _asked(one):
            raise UserError(f"{first} and {name} scored other pairs, so their means cannot be compared")
    rows = []
    for name, evaluation in evaluations.items():
        groups = list(dict.fromkeys(evaluation.summary.index.get_level_values("group")))
        if group not in groups:
            raise UserError(f"{name} has no group {group!r}: have {', '.join(groups)}")
        rows.append(told(evaluation.summary.loc[[group]]).set_axis([name]))
    return pd.concat(rows).fillna("")


def _asked(evaluation: Evaluation) -> dict[str, tuple[str, str]]:
    return {key: (pair.source_prompt, pair.target_prompt) for key, pair in evaluation.pairs.items()}


def compare_folders(
    folders: Sequence[Path],
    output: Path,
    published: Sequence[str] = (),
    group: str = ALL,
    x: str | None = None,
    y: str | None = None,
) -> tuple[pd.DataFrame, list[Path]]:
    """The table of folders that `sdist evaluate` wrote, whose names name its rows, and the paths of what is written.

    `x` and `y` are the metrics of trade_off.png, which is left out where no two can be found.
    """
    names = [folder.resolve().name for folder in folders]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"two folders are called {twice[0]}; a folder's name names its row")
    evaluations = {name: read_evaluation(folder) for name, folder in zip(names, folders, strict=True)}
    tables = [load_published(name) for name in published]
    measured = compare(evaluations, group)
    axes = choose_axes(list(measured), x, y)
    table = beside(measured, tables, group)
    if tables and next(iter(evaluations.values())).profile != "official":
        log.warning("published numbers were made as in --profile official; what was measured here has another profile")
    paths = write_comparison(writable_folder(output), evaluations, table, tables, group, axes)
    if axes is None:
        log.info("no trade_off.png: the scores have none of how well the rest is kept; see --x and --y")
    return table, paths


def write_comparison(
    folder: Path,
    evaluations: Mapping[str, Evaluation],
    table: pd.DataFrame,
    published: Sequence[Published] = (),
    group: str = ALL,
    axes: tuple[str, str] | None = None,
) -> list[Path]:
    """comparison.md, comparison.tex, success.png, report.html, and with axes trade_off.png, each atomically; their paths."""
    files = {
        "comparison.md": (table.to_markdown(disable_numparse=True) + "\n").encode(),
        "comparison.tex": to_latex(table, published).encode(),
        "success.png": success_curves({name: e.per_image["clip_r"].to_numpy(float) for name, e in evaluations.items()}),
        "report.html": report_page(evaluations, published, group),
    }
    if axes is not None:
        files["trade_off.png"] = trade_off(evaluations, *axes, group)
    for name, content in files.items():
        write_atomic(folder / name, content)
    return [folder / name for name in files]
