"""What a run has to do: images that are there, failed before, or are to be made."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ..editors.loading import ModelCache
from ..edits.outputs import check_inputs_stay, check_name, failed_before, forget_error
from ..edits.request import Request
from ..files.opening import image_size
from ..files.storage import mapped, names
from ..spelling import counted
from .inputs import InputPair, in_shard, read_pairs
from .matching import MatchResult, match
from .options import RunOptions
from .problems import ProblemReporter, Report
from .session import Session

log = logging.getLogger("sdist")

Rows = list[dict[str, Any]]  # what --json says of rows
Refused = dict[int, dict[str, Any]]  # of pairs that cannot be edited, by their numbers


@dataclass(frozen=True)
class Task:
    """An image to make; its source is read with its queue, so that no more than a queue is held."""

    name: str
    where: str
    request: Request
    size: tuple[int, int]
    number: int  # of its pair
    card: str | None = None  # that was there when this was planned
    is_there: bool = False  # as a whole, made for this, and stays


@dataclass(frozen=True)
class Plan:
    """The images of a call, all of which are there, to be made, failed in an earlier call, or left by --limit."""

    tasks: list[Task]
    there: int
    todo: list[Task]
    failed: int
    left: int
    sizes: Counter[tuple[int, int]]  # images of each size in all shards, made or not
    refused: int = 0  # images of pairs that cannot be edited
    changed: int = 0  # that are there, made for what their row was before
    rows: Rows = field(default_factory=list)  # those that are refused or changed, for --json

    @property
    def found(self) -> list[Task]:
        """Those that are there."""
        return [task for task in self.tasks if task.is_there]

    @property
    def names(self) -> list[str]:
        return [task.name for task in self.tasks]

    @cached_property
    def named(self) -> Mapping[tuple[int, int], str]:
        """The name of each image by the number of its pair and its seed."""
        return {(task.number, task.request.seed): task.name for task in self.tasks}


def plan_run(options: RunOptions, report: Report, models: ModelCache | None = None) -> tuple[Session, Plan]:
    """The session of a run, with its model loaded if there are pairs that can be edited, and what it has to do."""
    reading = ProblemReporter(report)
    pairs = read_pairs(options.input, reading, options.shard)
    session = Session(options, models)
    return session, make_plan(session, pairs, options, report, reading.problems)


def make_plan(session: Session, pairs: list[InputPair], options: RunOptions, report: Report, bad: Sequence[str] = ()) -> Plan:
    """What is to be made; `report` hears of pairs that cannot be edited. Raises UserError for results of other settings.

    `bad`: what is wrong with rows that are no pairs.
    """
    _report_unread_masks(session, pairs)
    asked, unusable = _tasks(session, pairs, options, report)
    refused = [*({"status": "refused", "reason": problem} for problem in bad), *unusable]
    found = match(session, asked, options)
    tasks = [task for task in found.tasks if in_shard(task.number, options.shard)]
    missing = [task for task in tasks if not task.is_there]
    check_inputs_stay(session.folder, (task.name for task in missing), (file for pair in pairs for file in pair.inputs))
    waiting = {} if options.changed or options.overwrite else _changed(session, tasks, found, report)
    failed = failed_before(session.folder)
    for name in failed.intersection(task.name for task in tasks if task.is_there and not options.dry_run):
        forget_error(session.folder, name)  # of a run that was killed just after it had made the image
    again = options.retry or options.overwrite
    todo = [task for task in missing if (again or task.name not in failed) and task.name not in waiting]
    now = todo[: options.limit]
    counts = (len(tasks) - len(missing), now, len(missing) - len(todo) - len(waiting), len(todo) - len(now))
    sizes = Counter(task.size for task in found.tasks)
    return Plan(tasks, *counts, sizes, len(refused) * options.seeds, len(waiting), [*refused, *waiting.values()])


def _report_unread_masks(session: Session, pairs: list[InputPair]) -> None:
    """Says that masks are given for nothing."""
    masks = sum(pair.mask is not None for pair in pairs)
    if masks and "mask" not in session.settings.reads:
        text = "%s: not read by %s; --keep-background and --crop auto read them"
        log.info(text, counted(masks, "mask"), session.name)


def _changed(session: Session, tasks: list[Task], found: MatchResult, report: Report) -> dict[str, dict[str, Any]]:
    """What --json says of results whose rows have changed since, by their names; `report` hears of each."""
    rows = dict[str, dict[str, Any]]()
    for task in (task for task in tasks if task.name in found.changed):
        what = " and ".join(found.changed[task.name])
        report(f"{task.where}: {task.name}.png was made with a different {what}; --changed makes it again")
        rows[task.name] = session.event("changed", session.folder / f"{task.name}.png", task.request, reason=f"different {what}")
    return rows


def _tasks(session: Session, pairs: list[InputPair], options: RunOptions, report: Report) -> tuple[list[Task], Rows]:
    """Every pair that can be edited with every seed, in all shards, and what --json says of those of this one that cannot.

    What needs no model is looked at first, so that none is loaded where nothing can be edited.
    """
    seeds = range(session.settings.seed, session.settings.seed + options.seeds)
    refused = Refused()
    requests = list[tuple[InputPair, Request]]()
    for pair in pairs:
        with _naming(pair, options, report, refused):
            check_name(session.folder, f"{pair.key}_seed{seeds[-1]}")
            request = pair.request(seeds[0], session.settings.reads)
            _ = image_size(request.file)
            requests.append((pair, request))
    tasks = list[Task]()
    if session.overwrite:
        names = [f"{pair.key}_seed{seed}" for pair, _ in requests for seed in seeds]
        check_inputs_stay(session.folder, names, (file for pair in pairs for file in pair.inputs))
    if requests:
        session.load()  # one that cannot be had is one error, not one per image
    for pair, request in requests:
        with _naming(pair, options, report, refused):
            size = session.method.check(request)
            tasks += [
                Task(f"{pair.key}_seed{seed}", pair.where, replace(request, seed=seed), size, pair.number) for seed in seeds
            ]
    return tasks, [*refused.values()]


@contextmanager
def _naming(pair: InputPair, options: RunOptions, report: Report, refused: Refused) -> Iterator[None]:
    """Reports what is wrong with a pair, if it is in the shard, and goes on."""
    try:
        yield
    except (OSError, ValueError) as error:  # a UserError is a ValueError; so is a path with a zero byte
        if in_shard(pair.number, options.shard):
            reason = f"{pair.where}: {error}"
            asked = {"source_image": str(pair.image), "source": pair.source, "target": pair.target}
            refused[pair.number] = {"status": "refused", **asked, "reason": reason}
            report(reason)


def missing_of(session: Session, tasks: list[Task]) -> list[Task]:
    """Those whose image was not made since this was planned: one listing says what is there, then the cards of that are read."""
    there = names(session.folder)
    made = mapped(session.folder, lambda task: session.is_made_meanwhile(task.name, task.card, there), tasks)
    return [task for task, is_made in zip(tasks, made, strict=True) if not is_made]
