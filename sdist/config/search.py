"""Searches: variants drawn from a space, which are run in rounds on more pairs each; the best of a round go on to the next.

Successive halving, arXiv 1502.07943; with one round a random search.
"""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from math import prod
from random import Random
from typing import Any, get_type_hints

from ..errors import UserError, unknown
from ..errors.arguments import check, check_count
from ..registry import METRICS
from .axes import Axes, point, read_axes

Entries = list[tuple[str, dict[str, Any]]]  # names of variants, and their values by key


@dataclass(frozen=True)
class Search:
    """How variants are drawn, and which of them are kept."""

    samples: int  # variants that are drawn, or the whole space if it has fewer
    pairs: Sequence[int]  # of the input, in each round; rising
    score: str  # a metric, whose value over all edits of a round says which variants are kept
    keep: float = 0.25  # share of a round's variants that goes on, at least one variant
    seed: int = 0  # of the draws

    def __post_init__(self) -> None:
        for name, count in (("samples", self.samples), *(("pairs", count) for count in self.pairs)):
            check_count(f"search: {name}", count)
        if not self.pairs or list(self.pairs) != sorted({*self.pairs}):
            raise UserError(f"search: pairs must rise from round to round, got {list(self.pairs)}")
        if not 0 <= self.keep <= 1:
            raise UserError(f"search: keep must be within 0..1, got {self.keep}")
        if self.score not in METRICS.names():
            raise unknown("metric", self.score, METRICS.names(), "search: score")

    def kept(self, count: int) -> int:
        """How many of so many variants go on to the next round."""
        return max(1, round(count * self.keep))

    def draw(self, space: Axes) -> Entries:
        """The variants, each there once; with more samples the same ones come first."""
        rng, drawn = Random(self.seed), dict[tuple[str, ...], None]()
        labels = [list(values) for values in space.values()]
        while len(drawn) < min(self.samples, prod(map(len, labels))):
            drawn[tuple(map(rng.choice, labels))] = None
        return [point(space, chosen) for chosen in drawn]


def read_search(data: Any) -> tuple[Search, Entries]:
    """What stands under `search` in a sweep's yaml, and the variants that it draws. Raises UserError for what is wrong there."""
    hints = get_type_hints(Search)
    keys, needed = [*hints, "space"], [*(field.name for field in fields(Search) if field.default is MISSING), "space"]
    if not isinstance(data, dict):
        raise UserError(f"search is {{{', '.join(f'{key}: ...' for key in keys)}}}, got {data!r}")
    for key in data:
        if key not in keys:
            raise unknown("key", str(key), keys, "search")
    if missing := [key for key in needed if key not in data]:
        raise UserError(f"search needs {', '.join(missing)}")
    pairs = data["pairs"]
    options = {**data, "pairs": pairs if isinstance(pairs, list) else [pairs]}
    space = read_axes(options.pop("space"), "search: space")
    for key, value in options.items():
        check(f"search: {key}", value, hints[key])
    search = Search(**options)
    return search, search.draw(space)
