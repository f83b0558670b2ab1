"""What `sdist evaluate` leaves: the table of pictures, and the summary also as Markdown and LaTeX."""

from pathlib import Path

from ..files.storage import write_atomic
from .folder import Evaluation, to_json
from .page import report_page
from .tables import told


def write_reports(folder: Path, evaluation: Evaluation, name: str) -> list[Path]:
    """per_image.csv, per_image.parquet, summary.csv, summary.md, summary.tex, evaluation.json and report.html; their paths."""
    shown = told(evaluation.summary)
    files = {
        "per_image.csv": evaluation.per_image.to_csv().encode(),
        "per_image.parquet": evaluation.per_image.to_parquet(),
        "summary.csv": evaluation.summary.to_csv().encode(),
        "summary.md": (shown.to_markdown(disable_numparse=True) + "\n").encode(),
        "summary.tex": shown.to_latex(escape=True).encode(),
        "evaluation.json": to_json(evaluation).encode(),
        "report.html": report_page({name: evaluation}),
    }
    for name, content in files.items():
        write_atomic(folder / name, content)
    return [folder / name for name in files]
