"""Summaries as text: a mean, its interval, and what was left out."""

import pandas as pd

from .summary import INSTRUCTION

DIGITS = 4
MARK = f"({INSTRUCTION})"  # behind a metric whose text is one


def format_table(summary: pd.DataFrame) -> pd.DataFrame:
    """One row per group, one column per metric: mean and interval as text, and how many images were left out.

    A metric that compared edits with instructions is marked.
    """
    cells = summary.apply(lambda row: _joined(*cell(row)), axis=1).unstack("metric")
    order = dict.fromkeys(summary.index.get_level_values("metric"))
    table = cells[list(order)].loc[list(dict.fromkeys(summary.index.get_level_values("group")))].fillna("")
    return table.rename(columns={name: f"{name} {MARK}" for name in marked(summary)})


def marked(summary: pd.DataFrame) -> set[str]:
    """The metrics that compared edits with instructions."""
    return {*summary.index[summary["text"] == INSTRUCTION].get_level_values("metric")}


def to_markdown(table: pd.DataFrame) -> str:
    """The table as it is, without taking texts for numbers."""
    return table.to_markdown(disable_numparse=True)


def cell(row: pd.Series) -> tuple[str, str, str]:
    """A mean, its interval and what was left out, as text; the latter two may be empty, and are where nothing is defined."""
    if pd.isna(row["mean"]):
        return "undefined", "", ""
    interval = "" if pd.isna(row["low"]) else f"{row['low']:#.{DIGITS}g} to {row['high']:#.{DIGITS}g}"
    left_out = f"{int(row['undefined'])} of {int(row['n'])} undefined" if row["undefined"] else ""
    return f"{row['mean']:#.{DIGITS}g}", interval, left_out


def _joined(mean: str, interval: str, left_out: str) -> str:
    return mean + (f" ({interval})" if interval else "") + (f", {left_out}" if left_out else "")
