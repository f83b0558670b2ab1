"""From pairs and their results to the folder of an evaluation."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..datasets.base import Pair
from ..metrics.profile import Profile
from .folder import Evaluation, shown_pairs
from .reports import write_reports
from .scores import Encoders, as_counted, score
from .summary import summarize_table


def evaluate(
    folder: Path,
    pairs: Sequence[Pair],
    results: Mapping[str, Path | None],
    encoders: Encoders,
    profile: Profile,
    name: str,
    progress: Callable[[int], object] = lambda n: None,
) -> tuple[pd.DataFrame, list[Path]]:
    """Scores the results, which the reports call by that name; the summary, and the paths of what was written."""
    table = score(pairs, results, encoders, profile, progress)
    summary = summarize_table(as_counted(table, pairs), profile)
    return summary, write_reports(folder, Evaluation(table, summary, profile, shown_pairs(pairs, results)), name)
