"""What `sdist evaluate` leaves: the table of pictures, the summary, and both as Markdown and LaTeX."""

from pathlib import Path

import pandas as pd

from ..images import write_atomic

DIGITS = 4


def write_reports(folder: Path, table: pd.DataFrame, summary: pd.DataFrame) -> list[Path]:
    """per_image.csv, per_image.parquet, summary.csv, summary.md and summary.tex, each written atomically; their paths."""
    shown = told(summary)
    files = {
        "per_image.csv": table.to_csv().encode(),
        "per_image.parquet": table.to_parquet(),
        "summary.csv": summary.to_csv().encode(),
        "summary.md": (shown.to_markdown() + "\n").encode(),
        "summary.tex": shown.to_latex().encode(),
    }
    for name, content in files.items():
        write_atomic(folder / name, content)
    return [folder / name for name in files]


def told(summary: pd.DataFrame) -> pd.DataFrame:
    """A row a group, a column a metric: mean and interval as text, and how many pictures were left out."""
    cells = summary.apply(_cell, axis=1).unstack("metric")
    order = dict.fromkeys(summary.index.get_level_values("metric"))
    return cells[list(order)].loc[list(dict.fromkeys(summary.index.get_level_values("group")))].fillna("")


def _cell(row: pd.Series) -> str:
    mean = f"{row['mean']:.{DIGITS}g}"
    interval = "" if pd.isna(row["low"]) else f" ({row['low']:.{DIGITS}g} to {row['high']:.{DIGITS}g})"
    return mean + interval + (f", {int(row['undefined'])} of {int(row['n'])} undefined" if row["undefined"] else "")
