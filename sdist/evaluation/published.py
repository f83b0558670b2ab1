"""Rows of published tables, to stand under measured ones; published.json has the numbers as they are printed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..errors import UserError, unknown

TABLES = Path(__file__).with_name("published.json")


class PublishedTable(NamedTuple):
    label: str  # paper, table, benchmark
    clip: str  # the CLIP that it was measured with
    groups: dict[str, pd.DataFrame]  # one row per method in the paper's order, one column per metric, with the paper's digits


def load_published(name: str) -> PublishedTable:
    """The published table of that name. Raises a UserError that names all."""
    tables = json.loads(TABLES.read_text())
    if name not in tables:
        raise unknown("published table", name, tables)
    table = tables[name]
    label = f"published: {table['paper']} (arXiv {table['arxiv']}), {table['where']}, {table['data']}"
    return PublishedTable(label, table["clip"], {group: _frame(rows, table) for group, rows in table["rows"].items()})


def beside(measured: pd.DataFrame, published: Sequence[PublishedTable], group: str) -> pd.DataFrame:
    """The measured rows, then each table's label and its rows in the paper's order; metrics that only it has come last.

    Raises UserError for a table that has no such group, or no metric that was measured.
    """
    parts = [measured]
    for label, _, groups in published:
        if group not in groups:
            raise UserError(f"{label} has no group {group!r}: have {', '.join(groups)}")
        if not set(groups[group]) & set(measured):
            raise UserError(f"{label} has no metric that was measured: it has {', '.join(groups[group])}")
        parts += [pd.DataFrame(index=[label], columns=measured.columns), groups[group]]
    return pd.concat([part.astype(object) for part in parts]).fillna("")


def to_latex(table: pd.DataFrame, published: Sequence[PublishedTable]) -> str:
    """The table with a rule and one wide cell where a published part begins."""
    labels = {p.label for p in published}
    lines = [
        f"\\midrule\n\\multicolumn{{{table.shape[1] + 1}}}{{l}}{{{label}}} \\\\"
        if (label := line.split(" & ")[0]) in labels
        else line
        for line in table.to_latex(escape=True).splitlines()
    ]
    return "\n".join(lines) + "\n"


def _frame(rows: dict[str, list[float]], table: dict[str, Any]) -> pd.DataFrame:
    """As the metrics are measured, without the powers of ten that the paper prints."""
    cells = {
        method: [
            _text(value, table.get("times", {}).get(metric, 1), table["decimals"])
            for metric, value in zip(table["metrics"], values, strict=True)
        ]
        for method, values in rows.items()
    }
    return pd.DataFrame.from_dict(cells, orient="index", columns=table["metrics"])


def _text(value: float, times: int, decimals: int) -> str:
    return f"{value / times:.{decimals + len(str(times)) - 1}f}"
