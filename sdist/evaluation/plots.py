"""Plots of a comparison: success over the threshold of CLIP-R, and one metric against another."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import UserError
from ..metrics.clip_auc import END
from ..registry import METRICS
from .folder import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# the default axes, the first that was measured: how much of the rest was kept, and how much of the prompt was done
PRESERVATION, FIDELITY = ("psnr", "l1", "clip_i"), ("clip_edited", "clip_auc", "clip_t")

DPI = 120
SPOTS = [  # of a name about its point, in points of 1/72 inch
    *((x, y) for far in (5, 14, 26) for x, y in ((far, 4), (-far, 4), (far, -4), (-far, -4))),
    *((0, y) for y in (7, -7, 16, -16, 28, -28)),
]


class Point(NamedTuple):
    """Mean, and the ends of its interval, which are nan where there is none."""

    mean: float
    low: float
    high: float


def success_curves(ratios: Mapping[str, np.ndarray]) -> bytes:
    """A PNG: for each k the share of edits with CLIP-R > k; one without a ratio passes nowhere and stays in the count.

    LUSD, arXiv 2503.11054, Figure 8.
    """
    figure, axes = _figure()
    k = np.linspace(1, END, 200)
    dashes = ("-", "--", ":")  # ten colours each
    for number, (name, values) in enumerate(ratios.items()):
        axes.plot(k, [(values > at).mean() for at in k], dashes[number // 10 % len(dashes)], label=name)
    axes.set(xlabel="k", ylabel="share of edits with CLIP-R > k", xlim=(1, END), ylim=(0, 1))
    figure.legend(loc="outside right upper", frameon=False)
    return _png(figure)


def choose_axes(metrics: Sequence[str], x: str | None, y: str | None) -> tuple[str, str] | None:
    """The metrics to draw: those named, else the first measured of PRESERVATION and FIDELITY; None if there is none.

    Raises UserError for a metric that was not measured.
    """
    for name in (x, y):
        if name is not None and name not in metrics:
            raise UserError(f"{name!r} was not measured: have {', '.join(metrics)}")
    x = x or next((name for name in PRESERVATION if name in metrics), None)
    y = y or next((name for name in FIDELITY if name in metrics), None)
    return None if x is None or y is None else (x, y)


def trade_off(evaluations: Mapping[str, Evaluation], x: str, y: str, group: str) -> bytes:
    """A PNG: one point per evaluation with its 95 % intervals in both directions; none without a finite mean."""
    figure, axes = _figure()
    places: dict[str, tuple[float, float]] = {}
    for name, evaluation in evaluations.items():
        h, v = (point(evaluation, metric, group) for metric in (x, y))
        if np.isfinite([h.mean, v.mean]).all():
            axes.errorbar(h.mean, v.mean, _arms(v), _arms(h), fmt="o", ms=5, lw=1, color=f"C{len(places)}")
            places[name] = (h.mean, v.mean)
    axes.set(xlabel=_axis(x, "→", "←"), ylabel=_axis(y, "↑", "↓"))
    axes.margins(0.12)
    _label(figure, axes, places)
    return _png(figure)


def point(evaluation: Evaluation, metric: str, group: str) -> Point:
    """nan for a metric that this evaluation lacks."""
    if (group, metric) not in evaluation.summary.index:
        return Point(np.nan, np.nan, np.nan)
    return Point(*(float(evaluation.summary.loc[group, metric][name]) for name in Point._fields))


def _arms(at: Point) -> np.ndarray:
    """Lengths of the bars below and above; none where the interval is unknown."""
    return np.nan_to_num([[at.mean - at.low], [at.high - at.mean]], posinf=0, neginf=0).clip(0)


def _axis(metric: str, more: str, less: str) -> str:
    kind = METRICS.get(metric)
    return f"{kind.label}   (better {more if kind.better == 'higher' else less})"


def _label(figure: "Figure", axes: "Axes", places: Mapping[str, tuple[float, float]]) -> None:
    """Names beside their points, each where it covers least of bars, points and earlier names."""
    figure.draw_without_rendering()
    taken = [bar.get_window_extent() for bar in axes.collections] + [line.get_window_extent() for line in axes.lines]
    for name, place in places.items():
        label = axes.annotate(name, place, (0, 0), textcoords="offset points", fontsize=9, color=f"C{list(places).index(name)}")
        label.set_in_layout(False)

        def covered(spot: tuple[int, int], label: Any = label) -> int:
            _put(label, spot)
            box = label.get_window_extent()
            return box.count_overlaps(taken) + 10 * (not _inside(box, axes.bbox))

        _put(label, min(SPOTS, key=covered))
        taken.append(label.get_window_extent())


def _put(label: Any, spot: tuple[int, int]) -> None:
    x, y = spot
    label.set_position((x, y))
    label.set(ha="left" if x > 0 else "right" if x < 0 else "center", va="bottom" if y > 0 else "top" if y < 0 else "center")


def _inside(box: Any, outer: Any) -> bool:
    return bool(outer.contains(*box.min) and outer.contains(*box.max))


def _figure() -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    return figure, figure.subplots()


def _png(figure: "Figure") -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
