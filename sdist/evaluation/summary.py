"""Means with 95 % bootstrap intervals, of all pictures and by category."""

from typing import Any

import numpy as np
import pandas as pd

from ..metrics.curves import clip_auc, passing, starred
from ..metrics.profile import Profile
from ..metrics.summary import summarize

RESAMPLES = 2000
ALL = "all"


def summarize_table(table: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """A row for each group (all, then each category) and metric: mean, low, high, n, undefined.

    Beside the columns of the table: clip_auc, l1_star and clip_i_star, areas over CLIP-R (LUSD, arXiv 2503.11054, section 4.2).
    """
    groups = {ALL: table}
    if table["category"].nunique() > 1:
        groups |= {str(name): part for name, part in table.groupby("category")}
    rows = [row for name, part in groups.items() for row in _of_group(name, part.drop(columns="category"), profile)]
    return pd.DataFrame(rows).set_index(["group", "metric"])


def _of_group(group: str, scores: pd.DataFrame, profile: Profile) -> list[dict[str, Any]]:
    rows = []
    for metric in scores:
        values = scores[metric].to_numpy(float)
        told = summarize(values, profile)
        low, high = _interval(values, lambda v: summarize(v, profile).mean)
        rows.append(_row(group, str(metric), told.mean, low, high, told.n, told.undefined))
    if "clip_r" in scores:
        ratios = scores["clip_r"].to_numpy(float)
        low, high = _interval(ratios, lambda v: clip_auc(v, profile))
        rows.append(_row(group, "clip_auc", clip_auc(ratios, profile), low, high, len(ratios), 0))
        for metric in ("l1", "clip_i"):
            if metric in scores:
                area = starred(scores[metric].to_numpy(float), ratios, profile)
                rows.append(_row(group, f"{metric}_star", area, np.nan, np.nan, passing(ratios, 1.0), 0))
    return rows


def _row(group: str, metric: str, mean: float, low: float, high: float, n: int, undefined: int) -> dict[str, Any]:
    return {"group": group, "metric": metric, "mean": mean, "low": low, "high": high, "n": n, "undefined": undefined}


def _interval(values: np.ndarray, statistic: Any) -> tuple[float, float]:
    picks = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.nanpercentile([statistic(values[pick]) for pick in picks], (2.5, 97.5))
    return float(low), float(high)
