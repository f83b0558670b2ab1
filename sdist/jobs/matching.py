"""Which results that are there belong to which images that are asked for: by what was asked, not by their names.

So rows may be added, taken out and sorted. A result that nothing asks for was made for a row that has changed since, if there is
one with the same image that has no result.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..edits.outputs import result_names, taken_names
from ..edits.run_card import describe
from ..edits.stored_results import StoredResult, content, image_marks, in_the_way, read_made
from ..errors import UserError
from ..files.digest import file_digest
from ..files.names import FreeNames
from .options import RunOptions

if TYPE_CHECKING:
    from .plan import Task
    from .session import Session


@dataclass
class MatchResult:
    """The tasks with the names of their results, and which of these are there, made for something else."""

    tasks: list[Task]
    changed: dict[str, list[str]] = field(default_factory=dict)  # names, and what differs


def match(session: Session, tasks: list[Task], options: RunOptions) -> MatchResult:
    """Gives each task the name of its result, or a free one.

    Raises UserError for results of other settings, and for a file in the place of one that is asked for that no run card is of.
    """
    listed = session.look()
    made = read_made(session.folder, result_names(listed), listed)
    matcher = _Matcher(session, made, listed)
    found = matcher.match(tasks)
    if matcher.other and not options.changed:
        raise _other_settings(matcher.other, options.method)
    if matcher.foreign and not options.overwrite:
        raise UserError(f"{matcher.foreign[0]} exists, and no run card says that it is of this result; --overwrite replaces it")
    return found


def _other_settings(other: list[tuple[StoredResult, list[str]]], method: str) -> UserError:
    made, differ = other[0]
    more = f" ({len(other)} results in all)" if len(other) > 1 else ""
    before, now = made.method, Path(method).stem
    how = f"was made with different {', '.join(differ)}"
    if before not in ("", now):
        how = f"was made by method {before}, this call is {now}"
    return UserError(f"{made.image} {how}{more}; --changed makes what differs again, --output names another folder")


class _Matcher:
    """Results by their content, and those that nothing was found for."""

    def __init__(self, session: Session, made: list[StoredResult], listed: Collection[str]) -> None:
        self._session, self._taken = session, taken_names(listed)
        self._there = {name.casefold() for name in listed}
        self._by_name = {one.name: one for one in made}
        self._by_content = defaultdict[str, list[StoredResult]](list)
        for one in made:
            self._by_content[content(one.job)].append(one)
        self.other: list[tuple[StoredResult, list[str]]] = []  # made with other settings
        self.foreign: list[Path] = []  # files in the place of results

    def match(self, tasks: list[Task]) -> MatchResult:
        if not self._taken:
            return MatchResult(tasks)
        digest = cache(file_digest)  # the seeds of a pair have one image
        jobs = [describe(task.request, digest) for task in tasks]
        own = [self._own(content(job), task.name) for task, job in zip(tasks, jobs, strict=True)]
        new = {task.name.casefold() for task, one in zip(tasks, own, strict=True) if one is None}
        free = FreeNames(self._taken | new)
        owned = {one.name for one in own if one is not None}
        orphans = _Orphans(one for name, one in self._by_name.items() if name not in owned)
        found = MatchResult([])
        for task, job, one in zip(tasks, jobs, own, strict=True):
            if one is None:
                found.tasks.append(self._without(task, job, orphans, free, found))
            else:
                found.tasks.append(replace(task, name=one.name, card=one.text, is_there=self._is_usable(one)))
        return found

    def _own(self, asked: str, name: str) -> StoredResult | None:
        """The result of that content, which is then no other's; the one of that name if there are several."""
        several = self._by_content.get(asked, [])
        if not several:
            return None
        one = next((one for one in several if one.name == name), several[0])
        several.remove(one)
        return one

    def _is_usable(self, one: StoredResult) -> bool:
        """Whether a result of the same request can stay: it is whole, of the same settings, and not to be overwritten."""
        if self._session.overwrite:
            return False
        differ = self._session.other_settings(one)
        if differ:
            self.other.append((one, differ))
        return not differ and self._session.is_whole(one)

    def _without(self, task: Task, job: dict[str, Any], orphans: _Orphans, free: FreeNames, found: MatchResult) -> Task:
        """A task for which there is no result: in the place of what its row was before, or under a free name."""
        before = orphans.take(job, (task.name, f"{task.number:03d}_seed{task.request.seed}"))
        if before is not None:
            found.changed[before.name] = before.other_request(job)
            return replace(task, name=before.name, card=before.text)
        if task.name.casefold() not in self._taken:
            return task
        if task.name not in self._by_name:
            if (file := in_the_way(self._session.folder, task.name, self._there, job)) is not None:
                self.foreign.append(file)
            return task
        key, _, seed = task.name.rpartition("_seed")
        return replace(task, name=free.take(key, f"_seed{seed}"))


class _Orphans:
    """Results that nothing asks for, by the images that they were made from."""

    def __init__(self, made: Iterable[StoredResult]) -> None:
        self._left = {one.name: one for one in made}
        self._by_image = defaultdict[tuple[str, str], deque[StoredResult]](deque)
        for one in self._left.values():
            for mark in image_marks(one.job):
                self._by_image[str(one.job["seed"]), mark].append(one)

    def take(self, job: dict[str, Any], places: Sequence[str]) -> StoredResult | None:
        """One for the same image, which is then no longer here: of these names, else with the same seed."""
        marks = image_marks(job)
        named = (self._left[name] for name in places if name in self._left)
        same = (one for one in named if not set(marks).isdisjoint(image_marks(one.job)))
        others = filter(None, (self._first(str(job["seed"]), mark) for mark in marks))
        chosen = next(chain(same, others), None)
        return None if chosen is None else self._left.pop(chosen.name)

    def _first(self, seed: str, mark: str) -> StoredResult | None:
        """The first that is left; those that were taken are dropped on the way."""
        made = self._by_image[seed, mark]
        while made and made[0].name not in self._left:
            made.popleft()
        return made[0] if made else None
