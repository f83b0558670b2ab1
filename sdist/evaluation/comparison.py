"""Several evaluations in one table, in plots and on one page."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..edits.outputs import writable_folder
from ..errors import UserError
from ..files.helpers import is_helper
from .folder import Evaluation, read_evaluation
from .page import report_page, union
from .plots import choose_axes, success_curves, trade_off
from .published import PublishedTable, beside, load_published, to_latex
from .summary import ALL
from .tables import format_table, marked, to_markdown
from .writing import write_pages

log = logging.getLogger("sdist")


class Comparison(NamedTuple):
    """The table of a comparison, and where it is written."""

    table: pd.DataFrame  # one row per evaluation, then those of published tables
    files: list[Path]
    problems: list[str]  # pages that could not be made, one line each


def compare_folders(
    folders: Sequence[Path],
    output: Path,
    published: Sequence[str] = (),
    group: str = ALL,
    x: str | None = None,
    y: str | None = None,
) -> Comparison:
    """Compares folders that `sdist evaluate` wrote; the name of a folder names its row.

    `x` and `y` are the metrics of trade_off.png, which is left out where no two can be found. Raises UserError for two folders of
    one name, and as `compare` and `beside` do.
    """
    folders = [folder for folder in folders if not is_helper(Path(folder.name))]  # of evaluations/*
    if not folders:
        raise UserError("there is no evaluation to compare; name folders that sdist evaluate wrote")
    names = [folder.resolve().name for folder in folders]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"two folders are called {twice[0]}; a folder's name names its row")
    evaluations = {name: read_evaluation(folder) for name, folder in zip(names, folders, strict=True)}
    tables = [load_published(name) for name in published]
    measured = compare(evaluations, group)
    axes = choose_axes(union(_defined(e.summary) for e in evaluations.values()), x, y)
    table = beside(measured, tables, group)
    _warn_of_other_measures(next(iter(evaluations.values())), tables)
    if tables and (orders := sorted(set.union(*(marked(e.summary) for e in evaluations.values())))):
        log.warning("%s compare edits with instructions here, published ones with descriptions: not in one column", orders)
    files, problems = write_comparison(writable_folder(output), evaluations, table, tables, group, axes)
    if axes is None:
        log.info("no trade_off.png: the scores have none of how well the rest is kept; see --x and --y")
    return Comparison(table, files, problems)


def _defined(summary: pd.DataFrame) -> pd.Index:
    """The metrics that have a mean."""
    return summary[summary["mean"].notna()].index.unique("metric")


def _warn_of_other_measures(measured: Evaluation, published: Sequence[PublishedTable]) -> None:
    """Says where published numbers were made in another way: with another profile, or another CLIP."""
    if published and measured.profile != "official":
        log.warning("published numbers were made as in --profile official; what was measured here has another profile")
    mine = measured.made_with.get("encoders", {}).get("clip")
    for other in sorted({table.clip for table in published}) if mine is not None else ():
        if Path(mine["id"]).name != Path(other).name:
            log.warning(
                "published numbers were made with CLIP %s, those measured here with %s: not comparable", other, mine["id"]
            )


def compare(evaluations: Mapping[str, Evaluation], group: str = ALL) -> pd.DataFrame:
    """One row per evaluation, one column per metric.

    Raises UserError if they scored other pairs, or with other networks or profiles, or if one has no such group.
    """
    (first, one), *others = evaluations.items()
    for name, other in others:
        if other.profile != one.profile:
            raise UserError(f"{first} has profile {one.profile}, {name} {other.profile}: their scores cannot be compared")
        if _prompts(other) != _prompts(one):
            raise UserError(f"{first} and {name} scored other pairs, so their means cannot be compared")
        _check_encoders(first, one, name, other)
    rows = []
    for name, evaluation in evaluations.items():
        groups = list(dict.fromkeys(evaluation.summary.index.get_level_values("group")))
        if group not in groups:
            raise UserError(f"{name} has no group {group!r}: have {', '.join(groups)}")
        rows.append(format_table(evaluation.summary.loc[[group]]).set_axis([name]))
    return pd.concat(rows).fillna("")


def _check_encoders(first: str, one: Evaluation, name: str, other: Evaluation) -> None:
    """Raises UserError if two evaluations measured with unlike networks, or if one alone says with which."""
    mine, others = one.made_with.get("encoders"), other.made_with.get("encoders")
    if (mine is None) != (others is None):
        older = first if mine is None else name
        raise UserError(f"{older} does not say with which networks it was scored, as older versions left it; evaluate it again")
    if mine is None or others is None:
        return
    for kind in mine.keys() & others.keys():
        a, b = mine[kind], others[kind]
        differ = [key for key in a.keys() | b.keys() if key not in ("id", "version") and a.get(key) != b.get(key)]
        if differ:
            what = " and ".join(f"{who} with {kind} {r['id']} ({_briefly(r)})" for who, r in ((first, a), (name, b)))
            raise UserError(f"{what}: their scores cannot be compared; evaluate both with the same --{kind}")


def _briefly(record: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in record.items() if key != "id")


def _prompts(evaluation: Evaluation) -> dict[str, tuple[str, str]]:
    return {key: (pair.source_prompt, pair.target_prompt) for key, pair in evaluation.pairs.items()}


def write_comparison(
    folder: Path,
    evaluations: Mapping[str, Evaluation],
    table: pd.DataFrame,
    published: Sequence[PublishedTable] = (),
    group: str = ALL,
    axes: tuple[str, str] | None = None,
) -> tuple[list[Path], list[str]]:
    """comparison.md, comparison.tex, report.html, success.png, and with axes trade_off.png; see `write_pages`.

    success.png needs edits with a CLIP-R in all evaluations.
    """
    pages: dict[str, Callable[[], str | bytes]] = {
        "comparison.md": lambda: to_markdown(table) + "\n",
        "comparison.tex": lambda: to_latex(table, published),
        "report.html": lambda: report_page(evaluations, published, group),
    }
    if all("clip_r" in e.per_image and e.per_image["clip_r"].notna().any() for e in evaluations.values()):
        ratios = {name: e.per_image["clip_r"].to_numpy(float) for name, e in evaluations.items()}
        pages["success.png"] = lambda: success_curves(ratios)
    if axes is not None:
        pages["trade_off.png"] = lambda: trade_off(evaluations, *axes, group)
    return write_pages(folder, pages)
