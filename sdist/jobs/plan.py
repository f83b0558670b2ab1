"""What a run has to do: images that are there, failed before, or are to be made."""

from collections import Counter
from dataclasses import dataclass, replace

from ..editors.loading import ModelCache
from ..edits.outputs import check_name, failed_before, forget_error
from ..edits.request import Request
from ..files.storage import mapped, names
from .inputs import InputPair, in_shard, read_pairs
from .options import RunOptions
from .problems import Report
from .session import Session


@dataclass(frozen=True)
class Task:
    """An image to make; its source is read with its queue, so that no more than a queue is held."""

    name: str
    where: str
    request: Request
    size: tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """The images of a call, all of which are there, to be made, failed in an earlier call, or left by --limit."""

    names: list[str]
    there: int
    todo: list[Task]
    failed: int
    left: int
    sizes: Counter[tuple[int, int]]  # images of each size in all shards, made or not


def plan_run(options: RunOptions, report: Report, models: ModelCache | None = None) -> tuple[Session, Plan]:
    """The session of a run, with its model loaded if there are pairs, and what it has to do."""
    pairs = read_pairs(options.input, report, options.shard)
    session = Session(options, models)
    if pairs:
        session.load()
    return session, make_plan(session, pairs, options, report)


def make_plan(session: Session, pairs: list[InputPair], options: RunOptions, report: Report) -> Plan:
    """What is to be made; `report` hears of pairs that cannot be edited. Raises UserError for results of other settings."""
    tasks, sizes = _tasks(session, pairs, options, report)
    missing = tasks if options.overwrite else missing_of(session, tasks)
    failed = failed_before(session.folder)
    for name in failed.intersection(task.name for task in tasks).difference(task.name for task in missing):
        forget_error(session.folder, name)  # of a run that was killed just after it had made the image
    todo = [task for task in missing if options.retry or options.overwrite or task.name not in failed]
    now = todo[: options.limit]
    counts = (len(tasks) - len(missing), now, len(missing) - len(todo), len(todo) - len(now))
    return Plan([task.name for task in tasks], *counts, sizes)


def _tasks(session: Session, pairs: list[InputPair], options: RunOptions, report: Report) -> tuple[list[Task], Counter]:
    """Every pair of the shard with every seed, and how many images of each size all shards have."""
    seeds = range(session.settings.seed, session.settings.seed + options.seeds)
    tasks, sizes = list[Task](), Counter[tuple[int, int]]()
    if not pairs:
        return tasks, sizes
    method = session.method
    for pair in pairs:
        try:
            check_name(session.folder, result_name(pair, seeds[-1]))
            request = pair.request(seeds[0], "instruction" in session.settings.editor.reads)
            size = method.check(request)
        except (OSError, ValueError) as error:  # a UserError is a ValueError; so is a path with a zero byte
            if in_shard(pair.number, options.shard):
                report(f"{pair.where}: {error}")
        else:
            sizes[size] += len(seeds)
            if in_shard(pair.number, options.shard):
                tasks += [Task(result_name(pair, seed), pair.where, replace(request, seed=seed), size) for seed in seeds]
    return tasks, sizes


def missing_of(session: Session, tasks: list[Task]) -> list[Task]:
    """Those whose image is not there as a whole: one listing says what is, then the cards of that are read."""
    there = names(session.folder)
    made = mapped(session.folder, lambda task: session.is_made(task.name, task.request, there), tasks)
    return [task for task, is_made in zip(tasks, made, strict=True) if not is_made]


def result_name(pair: InputPair, seed: int) -> str:
    return f"{pair.key}_seed{seed}"
