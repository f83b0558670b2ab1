"""Summaries as text: a mean, its interval, and what was left out."""

import pandas as pd

DIGITS = 4


def format_table(summary: pd.DataFrame) -> pd.DataFrame:
    """One row per group, one column per metric: mean and interval as text, and how many images were left out."""
    cells = summary.apply(lambda row: _joined(*cell(row)), axis=1).unstack("metric")
    order = dict.fromkeys(summary.index.get_level_values("metric"))
    return cells[list(order)].loc[list(dict.fromkeys(summary.index.get_level_values("group")))].fillna("")


def to_markdown(table: pd.DataFrame) -> str:
    """The table as it is, without taking texts for numbers."""
    return table.to_markdown(disable_numparse=True)


def cell(row: pd.Series) -> tuple[str, str, str]:
    """A mean, its interval and what was left out, as text; the latter two may be empty."""
    interval = "" if pd.isna(row["low"]) else f"{row['low']:#.{DIGITS}g} to {row['high']:#.{DIGITS}g}"
    left_out = f"{int(row['undefined'])} of {int(row['n'])} undefined" if row["undefined"] else ""
    return f"{row['mean']:#.{DIGITS}g}", interval, left_out


def _joined(mean: str, interval: str, left_out: str) -> str:
    return mean + (f" ({interval})" if interval else "") + (f", {left_out}" if left_out else "")
