"""Several evaluations in one table, and the share of edits that pass a threshold of CLIP-R (LUSD, arXiv 2503.11054, Figure 8)."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import UserError
from ..images import write_atomic
from ..metrics.curves import AUC_END
from .folder import Evaluation
from .page import report_page
from .summary import ALL
from .tables import told


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


def write_comparison(folder: Path, evaluations: Mapping[str, Evaluation], table: pd.DataFrame, group: str = ALL) -> list[Path]:
    """comparison.md, comparison.tex, success.png and report.html, each atomically; their paths."""
    files = {
        "comparison.md": (table.to_markdown() + "\n").encode(),
        "comparison.tex": table.to_latex(escape=True).encode(),
        "success.png": success_curves({name: e.per_image["clip_r"].to_numpy(float) for name, e in evaluations.items()}),
        "report.html": report_page(evaluations, group),
    }
    for name, content in files.items():
        write_atomic(folder / name, content)
    return [folder / name for name in files]


def success_curves(ratios: Mapping[str, np.ndarray]) -> bytes:
    """A PNG: for each k the share of edits with CLIP-R > k; one without a ratio passes nowhere and stays in the count."""
    from matplotlib.figure import Figure

    k = np.linspace(1, AUC_END, 200)
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, values in ratios.items():
        axes.plot(k, [(values > at).mean() for at in k], label=name)
    axes.set(xlabel="k", ylabel="share of edits with CLIP-R > k", xlim=(1, AUC_END), ylim=(0, 1))
    axes.legend()
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
