"""Several evaluations in one table, and the share of edits that pass a threshold of CLIP-R (LUSD, arXiv 2503.11054, Figure 8)."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..errors import UserError
from ..images import write_atomic
from ..metrics.curves import AUC_END
from .reports import told
from .summary import ALL


class Evaluation(NamedTuple):
    """What `sdist evaluate` left in a folder."""

    per_image: pd.DataFrame
    summary: pd.DataFrame


def read_evaluation(folder: Path) -> Evaluation:
    """UserError if the folder is not one of `sdist evaluate`."""
    try:
        per_image = pd.read_csv(folder / "per_image.csv", dtype={"key": str, "category": str}).set_index("key")
        summary = pd.read_csv(folder / "summary.csv", dtype={"group": str}).set_index(["group", "metric"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} is not a folder that sdist evaluate wrote: {' '.join(str(error).split())[:200]}") from None
    return Evaluation(per_image, summary)


def compare(evaluations: Mapping[str, Evaluation], group: str = ALL) -> pd.DataFrame:
    """A row an evaluation, a column a metric; UserError if they scored other pairs, or if one has no such group."""
    (first, one), *others = evaluations.items()
    for name, other in others:
        if set(other.per_image.index) != set(one.per_image.index):
            raise UserError(f"{first} and {name} scored other pairs, so their means cannot be compared")
    rows = []
    for name, evaluation in evaluations.items():
        groups = list(dict.fromkeys(evaluation.summary.index.get_level_values("group")))
        if group not in groups:
            raise UserError(f"{name} has no group {group!r}: have {', '.join(groups)}")
        rows.append(told(evaluation.summary.loc[[group]]).set_axis([name]))
    return pd.concat(rows).fillna("")


def write_comparison(folder: Path, evaluations: Mapping[str, Evaluation], table: pd.DataFrame) -> list[Path]:
    """comparison.md, comparison.tex and success.png, each atomically; their paths."""
    files = {
        "comparison.md": (table.to_markdown() + "\n").encode(),
        "comparison.tex": table.to_latex().encode(),
        "success.png": success_curves({name: e.per_image["clip_r"].to_numpy(float) for name, e in evaluations.items()}),
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
