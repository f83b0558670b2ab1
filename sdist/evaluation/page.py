"""report.html: one page without outside resources, with the summary and every pair with the edits of all methods."""

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..registry import METRICS
from .folder import Evaluation
from .published import PublishedTable
from .summary import ALL
from .tables import MARK, cell, marked
from .thumbnails import Thumbnails

log = logging.getLogger("sdist")

TEMPLATE = Path(__file__).with_name("report.html")
PLACE = "{{data}}"  # in the template
ARROWS = {"higher": "↑", "lower": "↓"}
# what would be invisible or would reorder the text around it: controls, line separators, bidi marks, lone surrogates
HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")


def report_page(evaluations: Mapping[str, Evaluation], published: Sequence[PublishedTable] = (), group: str = ALL) -> bytes:
    """The page, which shows `group` first; images that are no longer where they were are left out, with a warning."""
    thumbnails = Thumbnails()
    first = next(iter(evaluations.values()))
    metrics = union(e.per_image.columns.drop("category") for e in evaluations.values())
    data = {
        "title": visible(_title(list(evaluations))), "about": _about(first),
        "all": ALL, "group": visible(group), "methods": [visible(name) for name in evaluations],
        "metrics": [_heading(metric) for metric in metrics], **_summary(evaluations, published),
        "pairs": [_pair(key, evaluations, metrics, thumbnails) for key in first.per_image.index],
        "pictures": thumbnails.pictures, "lost": len(thumbnails.lost),
    }  # fmt: skip
    if thumbnails.lost:
        log.warning(
            "report.html lacks %d pictures that were moved or cannot be read, the first is %s",
            len(thumbnails.lost), thumbnails.lost[0],
        )  # fmt: skip
    return TEMPLATE.read_text(encoding="utf-8").replace(PLACE, _script_safe(data)).encode()


def _title(names: list[str]) -> str:
    """What the page shows; three names or more stand in its table."""
    return " and ".join(names) if len(names) < 3 else f"{len(names)} evaluations compared"


def _about(evaluation: Evaluation) -> str:
    """What all scores have in common."""
    networks = evaluation.made_with.get("encoders", {}).items()
    named = [
        f"{kind} {record['id']}" + (f" at {record['input']} pixels" if "input" in record else "") for kind, record in networks
    ]
    return visible(", ".join([f"{len(evaluation.per_image)} pairs", f"{evaluation.profile} profile", *named]))


def visible(text: str) -> str:
    """The text with hidden characters spelled out, such as ⟨U+202E⟩."""
    return HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def _script_safe(data: object) -> str:
    """JSON in ASCII that no HTML parser can take for the end of its script."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _summary(evaluations: Mapping[str, Evaluation], published: Sequence[PublishedTable]) -> dict[str, Any]:
    """Of each group the measured rows, and the published ones under their label."""
    summaries = [e.summary for e in evaluations.values()]
    every = [frame.columns for p in published for frame in p.groups.values()]
    columns = union([*(s.index.get_level_values("metric") for s in summaries), *every])
    groups = union(s.index.get_level_values("group") for s in summaries)
    orders = set[str]().union(*map(marked, summaries))
    measured = {visible(group): [[_cell(s, group, column) for column in columns] for s in summaries] for group in groups}
    printed = [
        {
            "label": p.label,
            "rows": {group: _printed(frame.drop(columns=orders, errors="ignore"), columns) for group, frame in p.groups.items()},
        }
        for p in published
    ]
    return {"columns": [_heading(column, column in orders) for column in columns], "summary": measured, "published": printed}


def _printed(frame: pd.DataFrame, columns: list[str]) -> list[tuple[str, list[tuple[str] | None]]]:
    return [(name, [(row[c],) if c in frame else None for c in columns]) for name, row in frame.iterrows()]


def _cell(summary: pd.DataFrame, group: str, metric: str) -> tuple[str, str, str] | None:
    return cell(summary.loc[group, metric]) if (group, metric) in summary.index else None


def _pair(key: str, evaluations: Mapping[str, Evaluation], metrics: list[str], thumbnails: Thumbnails) -> dict[str, Any]:
    every = list(evaluations.values())
    shown, category = every[0].pairs[key], every[0].per_image.loc[key, "category"]
    return {
        "key": visible(key), "category": visible(category) if isinstance(category, str) else "",
        "prompts": [visible(shown.source_prompt), visible(shown.target_prompt)],
        "source": thumbnails.place(shown.source), "truth": thumbnails.place(shown.truth),
        "edits": [thumbnails.place(e.pairs[key].result) for e in every],
        "scores": [[_number(e.per_image.at[key, m]) if m in e.per_image else None for m in metrics] for e in every],
    }  # fmt: skip


def _number(value: float) -> float | str | None:
    """Six digits; JSON knows neither nan (None) nor infinity ("Infinity", which JavaScript reads as the number)."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(f"{value:.6g}")


def _heading(name: str, mark: bool = False) -> dict[str, str]:
    metric = METRICS.get(name)
    label = f"{metric.label} {MARK}" if mark else metric.label
    return {"name": name, "label": label, "arrow": ARROWS[metric.better], "better": metric.better}


def union(lists: Iterable[Iterable[str]]) -> list[str]:
    """What stands in any of the lists, in order of first appearance."""
    return list(dict.fromkeys(item for items in lists for item in items))
