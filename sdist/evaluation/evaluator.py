"""From a dataset and the results of a method to the folder of an evaluation: scores first, then pages of them."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..datasets.base import load_dataset
from ..edits.outputs import writable_folder
from ..errors import UserError
from ..files.storage import write_atomic
from ..metrics.base import Encoders
from ..metrics.profile import check_profile
from .evaluate import EvaluationOptions
from .folder import RECORD, Evaluation, is_of_another, made_with, scored_pairs, to_json
from .measuring import Report
from .page import report_page
from .results import check_sizes, find_results
from .scores import Metrics, as_counted, instructed, load_encoders, measurable, metrics_of, score
from .summary import ALL, summarize_table
from .tables import format_table, to_markdown
from .writing import write_pages

log = logging.getLogger("sdist")


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found, and where it is written."""

    per_image: pd.DataFrame  # one row per pair
    summary: pd.DataFrame  # one row per group and metric
    files: tuple[Path, ...]
    problems: tuple[str, ...]  # pairs and metrics without scores, and pages that could not be made, one line each

    def __repr__(self) -> str:
        """In one line."""
        metrics = ", ".join(map(str, self.summary.index.unique("metric")))
        where = f"{len(self.per_image)} pairs in {self.files[0].parent}"
        return f"<EvaluationResult of {where}, {len(self.problems)} problems: {metrics}>"


class Evaluator:
    """A dataset and encoders, loaded once for the results of any number of methods."""

    def __init__(self, dataset: str, options: EvaluationOptions, first: int | None = None) -> None:
        """`first` takes so many pairs only. Raises UserError for a dataset that cannot be loaded."""
        self._profile, self._options = check_profile(options.profile), options
        self._pairs = load_dataset(dataset, self._profile)
        self.pairs = self._pairs[:first]
        self._means: tuple[Encoders, Metrics] | None = None

    def load(self) -> tuple[Encoders, Metrics]:
        """The encoders and what they measure, now instead of with the first results.

        Raises UserError for an encoder that cannot be loaded, and if nothing can be measured.
        """
        if self._means is None:
            o = self._options
            lpips, cache = (None if path is None else Path(path) for path in (o.lpips, o.cache))
            encoders = load_encoders(o.clip, o.dino, lpips, cache, o.device)
            self._means = encoders, measurable(self.pairs, encoders)
        return self._means

    def check(self, metric: str) -> None:
        """Raises UserError if there is no metric of that name, or if it cannot be measured."""
        metrics_of(metric, self.load()[1])

    def mean(self, metric: str, results: Path, seed: int, first: int, report: Report) -> tuple[float, int]:
        """The value of one metric for the results of the first pairs, and how many of them are undefined; nothing is written.

        Raises UserError as a call does.
        """
        files, pairs = self._find(results, seed), self.pairs[:first]
        encoders, metrics = self.load()
        table = score(pairs, files, metrics_of(metric, metrics), encoders, self._profile, report)
        row = summarize_table(as_counted(table, pairs), self._profile, report=report).loc[(ALL, metric)]
        return float(row["mean"]), int(row["undefined"])

    def __call__(
        self, results: Path, output: Path, seed: int = 0, progress: Callable[[int], object] = lambda pairs: None
    ) -> EvaluationResult:
        """Scores a folder of results.

        Raises UserError for results that are missing or belong to no pair, and for scores of something else that are there.
        """
        files, problems = self._find(results, seed), list[str]()
        encoders, metrics = self.load()
        shown, means = scored_pairs(self.pairs, files), made_with(encoders)
        if not self._options.overwrite and is_of_another(output, self._profile, shown, means):
            raise UserError(f"{output} has the scores of another evaluation; --overwrite replaces them, --output names another")
        folder = writable_folder(output)
        per_image = score(self.pairs, files, metrics, encoders, self._profile, problems.append, progress)
        write_atomic(folder / "per_image.csv", per_image.to_csv().encode())
        orders = instructed(self.pairs, metrics)
        summary = summarize_table(as_counted(per_image, self.pairs), self._profile, orders, problems.append)
        write_atomic(folder / "summary.csv", summary.to_csv().encode())
        evaluation = Evaluation(per_image, summary, self._profile, shown, means)
        write_atomic(folder / RECORD, to_json(evaluation).encode())
        paths, unmade = write_report(folder, evaluation, results.resolve().name)
        scores = (folder / name for name in ("per_image.csv", "summary.csv", RECORD))
        return EvaluationResult(per_image, summary, (*scores, *paths), (*problems, *unmade))

    def _find(self, folder: Path, seed: int) -> Mapping[str, Path | None]:
        results = find_results(folder, self._pairs, seed)
        missing = [pair.named for pair in self.pairs if results[pair.key] is None]
        if missing and not self._options.allow_missing:
            raise UserError(
                f"{len(missing)} of {len(self.pairs)} results are missing in {folder}, the first is {missing[0]}; "
                "with --allow-missing they count as undefined"
            )
        if self._profile == "official":
            check_sizes(self.pairs, results)
        return results


def write_report(folder: Path, evaluation: Evaluation, name: str) -> tuple[list[Path], list[str]]:
    """per_image.parquet, summary.md, summary.tex and report.html, which calls the method by `name`; see `write_pages`."""
    table = format_table(evaluation.summary)
    return write_pages(folder, {
        "per_image.parquet": evaluation.per_image.to_parquet,
        "summary.md": lambda: to_markdown(table) + "\n",
        "summary.tex": lambda: table.to_latex(escape=True),
        "report.html": lambda: report_page({name: evaluation}),
    })  # fmt: skip
