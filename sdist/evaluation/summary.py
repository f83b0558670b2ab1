"""One value per metric for groups of images, all and each category, with 95 % bootstrap intervals."""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..metrics.base import GroupMetric, Scores, Summary
from ..metrics.profile import Profile
from ..metrics.summary import summarize
from ..registry import METRICS
from .measuring import reason_of

RESAMPLES = 2000
ALL = "all"
INSTRUCTION = "instruction"  # what the edit was compared with is an order, not a description of what is to be seen

Columns = Mapping[str, Scores]  # the scores of a group by the name of their metric


class Statistic(NamedTuple):
    """How a metric sums up a group."""

    metric: str
    reads: tuple[str, ...]  # columns
    value: Callable[[Columns], Summary]
    interval: bool  # whether resampling gives one


def summarize_table(
    table: pd.DataFrame,
    profile: Profile,
    instructed: Collection[str] = (),
    report: Callable[[str], None] = lambda problem: None,
) -> pd.DataFrame:
    """One row per group (all, then each category) and metric: mean, low, high, n, undefined, text.

    Of an image metric the mean is that of its column; of a group metric, whose columns are all there, it is the value. `text` is
    INSTRUCTION for the metrics that are `instructed` and those that read them. `report` hears of metrics that fail.
    """
    groups = {ALL: table}
    if table["category"].nunique() > 1:
        groups |= {str(name): part for name, part in table.groupby("category")}
    rows, problems = list[dict[str, Any]](), dict[str, None]()
    for name, part in groups.items():
        columns = {str(column): part[column].to_numpy(float) for column in part.columns.drop("category")}
        for statistic in _statistics(columns, profile):
            try:
                text = INSTRUCTION if {*statistic.reads} & {*instructed} else ""
                rows.append({"group": name, "metric": statistic.metric, **_row(statistic, columns), "text": text})
            except Exception as error:  # a metric may be anybody's
                problems[f"metric {statistic.metric} fails: {reason_of(error)}"] = None
    for problem in problems:
        report(problem)
    return pd.DataFrame(rows).set_index(["group", "metric"])


def _row(statistic: Statistic, columns: Columns) -> dict[str, Any]:
    inputs = {name: columns[name] for name in statistic.reads}
    mean, n, undefined, _ = statistic.value(inputs)
    low, high = _interval(inputs, statistic.value) if statistic.interval else (np.nan, np.nan)
    return {"mean": mean, "low": low, "high": high, "n": n, "undefined": undefined}


def _of_column(name: str, profile: Profile, inputs: Columns) -> Summary:
    return summarize(inputs[name], profile)


def _statistics(columns: Columns, profile: Profile) -> Iterator[Statistic]:
    """The means of the columns, then the group metrics that they suffice for."""
    for name in columns:
        yield Statistic(name, (name,), partial(_of_column, name, profile), interval=True)
    for name in METRICS.names():
        metric = METRICS.get(name)()
        if isinstance(metric, GroupMetric) and columns.keys() >= {*metric.reads}:
            yield Statistic(name, metric.reads, partial(metric, profile=profile), metric.interval)


def _interval(inputs: Columns, value: Callable[[Columns], Summary]) -> tuple[float, float]:
    n = len(next(iter(inputs.values())))
    picks = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    values = [value({name: scores[pick] for name, scores in inputs.items()}).value for pick in picks]
    if np.isnan(values).all():
        return np.nan, np.nan
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)
