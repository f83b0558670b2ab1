"""Every variant of a sweep as a run of its own, with one loaded model; then a sheet of them all, and their scores."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config.settings import Settings
from ..config.sweep import Sweep, Variant, changes
from ..editors.loading import ModelCache
from ..edits.stored_results import SAME
from ..errors import UserError
from ..evaluation.evaluate import EvaluationOptions
from ..spelling import counted
from .counts import at_least_one
from .engines.local import edit_all
from .inputs import InputPair, read_pairs
from .options import WHOLE, RunOptions
from .plan import Plan, make_plan
from .problems import ProblemReporter, Report
from .session import Session
from .summary import RunResult, run_result, summary
from .sweep_outputs import Say, compare_all, evaluator, write_grid

log = logging.getLogger("sdist")


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """A run of every variant, and what is shown of them all."""

    sweep: Sweep
    runs: Sequence[RunOptions]  # one per variant; they differ in method, settings, name and output alone
    output: Path  # of what shows all variants
    first: int | None = None  # pairs of the input that are taken; None: all
    rows: int = 8  # pairs in grid.png at most
    evaluation: EvaluationOptions | None = None  # None: no scores

    def __post_init__(self) -> None:
        at_least_one(first=self.first, rows=self.rows)
        if self.evaluation is not None and self.runs[0].shard != WHOLE:
            raise UserError("--clip evaluates all pictures: give it to a call without --shard, when all shards are made")


def variant_settings(sweep: Sweep, load: Callable[[Variant], Settings]) -> dict[str, Settings]:
    """The settings of every variant, so that a wrong value is known before anything is made.

    Raises UserError if two variants are the same.
    """
    settings: dict[str, Settings] = {}
    names: dict[str, str] = {}
    for variant in sweep.variants:
        try:
            settings[variant.name] = load(variant)
        except UserError as error:
            raise UserError(f"sweep {sweep.name}, variant {variant.name}: {error}") from None
        plain = json.dumps({key: value for key, value in settings[variant.name].plain().items() if key not in SAME})
        if plain in names:
            raise UserError(f"sweep {sweep.name}: {names[plain]} and {variant.name} come to the same settings")
        names[plain] = variant.name
    return settings


def listing(sweep: Sweep, settings: Mapping[str, Settings], base: Settings | None) -> list[str]:
    """One line per variant: what it changes against the base of the sweep, or against the first variant if there is none."""
    first, width = next(iter(settings)), max(map(len, settings))
    before = (base or settings[first]).plain() | {"log": None}
    lines = [f"{sweep.name}: {len(settings)} variants, and what they change against {sweep.base or first}"]
    for name, variant in settings.items():
        lines.append(f"  {name:{width}}  {' '.join(changes(before, variant.plain() | {'log': None}))}".rstrip())
    return lines


def run_sweep(options: SweepOptions, report: ProblemReporter, say: Say) -> list[RunResult]:
    """Makes what is missing of all variants, and, if nothing is left, grid.png and the scores; `say` hears of each."""
    source, shard = options.runs[0].input, options.runs[0].shard
    read = read_pairs(source, reading := ProblemReporter(report), shard)
    pairs = [pair for pair in read if options.first is None or pair.number < options.first]
    evaluate = None if options.evaluation is None else evaluator(options.evaluation, source, options.first)
    work = _plan(options, pairs, report, reading.problems)
    results = [_edit(session, plan, report, say) for session, plan in work.items()]
    if shard == WHOLE and not any(result.left for result in results):
        if shown := _shown(work, pairs)[: options.rows]:
            say(str(write_grid(options.output / "grid.png", options.sweep, work, shown)))
        if evaluate is not None:
            compare_all(options.output, list(work), evaluate, report, say)
    return results


def _plan(options: SweepOptions, pairs: list[InputPair], report: Report, bad: Sequence[str]) -> dict[Session, Plan]:
    """What every variant has to make; what can be refused is refused here, before the first edit."""
    models, work, limit = ModelCache(kept=1), dict[Session, Plan](), options.runs[0].limit
    for run in options.runs:
        session = Session(run, models)
        work[session] = plan = make_plan(session, pairs, replace(run, limit=limit), report, bad)
        limit = None if limit is None else limit - len(plan.todo)
    return work


def _edit(session: Session, plan: Plan, report: Report, say: Say) -> RunResult:
    """Makes what is missing of a variant; a problem of one variant does not end the others."""
    log.info("variant %s: %s, already there: %d", session.name, counted(len(plan.names), "image"), plan.there)
    mine, seconds = ProblemReporter(lambda text: report(f"{session.name}: {text}")), 0.0
    try:
        seconds = edit_all(session, plan, mine)
    except UserError as error:
        mine(str(error))
    result = run_result(session, plan, seconds, mine.problems)
    say(f"{session.name}: {summary([result])[0]}")
    return result


def _shown(work: Mapping[Session, Plan], pairs: list[InputPair]) -> list[InputPair]:
    """Pairs that could be planned."""
    session, plan = next(iter(work.items()))
    return [pair for pair in pairs if (pair.number, session.settings.seed) in plan.named]
