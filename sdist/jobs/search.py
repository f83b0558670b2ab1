"""A search: the variants of a sweep in rounds of more pairs each, of which the best go on; search.csv has the scores of all."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isnan
from typing import TYPE_CHECKING, Any

from ..config.search import Search
from ..config.sweep import Variant
from ..errors import UserError
from ..evaluation.evaluate import EvaluationOptions
from ..extras import need
from ..files.storage import write_atomic
from ..registry import METRICS
from ..spelling import counted
from .inputs import dataset_of
from .options import WHOLE
from .problems import ProblemReporter, Report
from .summary import RunResult
from .sweep import SweepOptions, run_sweep
from .sweep_outputs import Say

if TYPE_CHECKING:
    from ..evaluation.evaluator import Evaluator

Row = Mapping[str, Any]  # of search.csv: round, pairs, variant, its method and settings, its score, and edits without one


def run_search(
    options: SweepOptions, search: Search, scoring: EvaluationOptions, report: ProblemReporter, say: Say
) -> list[RunResult]:
    """Makes what is missing of every round, and search.csv; `say` hears of each variant, of the last round and of the best.

    With `options.evaluation` the variants of the last round are evaluated and compared. Raises UserError for options of parts of
    an input, for a score that cannot be measured, and if a round has none.
    """
    _check(options)
    evaluator = _evaluator(options.runs[0].input, search, scoring)
    rows, results, ranked = list[Row](), dict[str, RunResult](), list[Row]()
    for number, pairs in enumerate(search.pairs, 1):
        if ranked:
            options = _only(options, [row["variant"] for row in ranked[: search.kept(len(ranked))]])
        say(f"round {number} of {len(search.pairs)}: {counted(len(options.runs), 'variant')}, {counted(pairs, 'pair')}")
        is_last = number == len(search.pairs)
        made = run_sweep(replace(options, first=pairs, evaluation=options.evaluation if is_last else None), report, say)
        results |= {run.name: _joined(results.get(run.name), one) for run, one in zip(options.runs, made, strict=True)}
        if others := sum(one.elsewhere for one in made):
            raise UserError(f"round {number}: {counted(others, 'image')} left to another process; call again when it has ended")
        ranked = _ranked(options, search, number, evaluator, report)
        rows += ranked
        write_atomic(options.output / "search.csv", _table(rows).to_csv(index=False).encode())
    say(_table(ranked)[["variant", search.score, "undefined"]].to_markdown(index=False, floatfmt=".4g"))
    say(_settings(next(variant for variant in options.sweep.variants if variant.name == ranked[0]["variant"])))
    return list(results.values())


def _check(options: SweepOptions) -> None:
    run = options.runs[0]
    given = {"first": options.first is not None, "limit": run.limit is not None, "shard": run.shard != WHOLE}
    for name, is_given in {**given, "overwrite": run.overwrite}.items():
        if is_given:
            raise UserError(f"--{name} is not for a search: it makes what is missing of whole rounds, whose pairs its yaml says")
    if run.seeds != 1:
        raise UserError(f"--seeds {run.seeds}: a search scores one image per pair, that of --seed; leave --seeds out")


def _evaluator(source: str, search: Search, scoring: EvaluationOptions) -> "Evaluator":
    """What measures the score, known to be able to."""
    need("sweep with a search", "pandas", "pyarrow", "scipy", "tabulate")
    from ..evaluation.evaluator import Evaluator

    most = search.pairs[-1]
    evaluator = Evaluator(dataset_of(source), scoring, most)
    if len(evaluator.pairs) < most:
        raise UserError(f"search: pairs: a round wants {most}, and {source} has {len(evaluator.pairs)}")
    evaluator.check(search.score)
    return evaluator


def _joined(before: RunResult | None, now: RunResult) -> RunResult:
    """What became of a variant's images in this round and those before, which the round has too."""
    if before is None:
        return now
    return now._replace(made=before.made + now.made, there=now.there - before.made, seconds=before.seconds + now.seconds)


def _ranked(options: SweepOptions, search: Search, number: int, evaluator: "Evaluator", report: Report) -> list[Row]:
    """The variants with their scores: those with the most edits that have one first, of these the best."""
    rows, pairs = list[Row](), search.pairs[number - 1]
    for variant, run in zip(options.sweep.variants, options.runs, strict=True):
        try:
            mean, undefined = evaluator.mean(search.score, run.output, run.settings.seed, pairs, report)
        except UserError as error:
            report(f"{variant.name} has no score: {error}")
            continue
        settings = dict(override.split("=", 1) for override in variant.overrides)
        row = {"round": number, "pairs": pairs, "variant": variant.name, "method": variant.method, **settings}
        rows.append({**row, search.score: mean, "undefined": undefined})
    rows = [row for row in rows if not isnan(row[search.score])]
    if not rows:
        raise UserError(f"round {number}: no variant has a {search.score}")
    sign = 1 if METRICS.get(search.score).better == "lower" else -1
    return sorted(rows, key=lambda row: (row["undefined"], sign * row[search.score]))


def _only(options: SweepOptions, names: Sequence[str]) -> SweepOptions:
    """The options with these variants alone."""
    variants = tuple(variant for variant in options.sweep.variants if variant.name in names)
    runs = [run for run in options.runs if run.name in names]
    return replace(options, sweep=replace(options.sweep, variants=variants), runs=runs)


def _table(rows: Sequence[Row]) -> Any:
    import pandas as pd  # of an extra

    return pd.DataFrame(rows)


def _settings(variant: Variant) -> str:
    """A variant as arguments of the command line."""
    arguments = ["--method", variant.method, *(["--set", *variant.overrides] if variant.overrides else [])]
    return f"best: {shlex.join(arguments)}"
