"""Which results that are there belong to which images that are asked for: by what was asked, not by their names.

So rows may be added, taken out and sorted. A result that nothing asks for was made for a row that has changed since, if there is
one with the same image that has no result.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..edits.made import Made, content, read_made
from ..edits.outputs import result_names
from ..edits.run_card import describe
from ..errors import UserError
from ..files.names import numbered
from .options import RunOptions

if TYPE_CHECKING:
    from .plan import Task
    from .session import Session


@dataclass
class Found:
    """The tasks with the names of their results, and which of these are there, made for something else."""

    tasks: list[Task]
    changed: dict[str, list[str]] = field(default_factory=dict)  # names, and what differs


def match(session: Session, tasks: list[Task], options: RunOptions) -> Found:
    """Gives each task the name of its result, or a free one.

    Raises UserError for results of other settings, and for an image in the place of one that is asked for that has no run card.
    """
    listed = session.look()
    made = read_made(session.folder, result_names(listed), listed)
    matcher = _Matcher(session, made, {name.casefold() for name in result_names(listed)})
    found = matcher.match(tasks)
    if matcher.other and not options.changed:
        raise _other_settings(matcher.other, options)
    if matcher.foreign and not options.overwrite:
        raise UserError(f"{matcher.foreign[0]} has no run card beside it; --overwrite replaces it")
    return found


def _other_settings(other: list[tuple[Made, list[str]]], options: RunOptions) -> UserError:
    made, differ = other[0]
    more = f" ({len(other)} results in all)" if len(other) > 1 else ""
    return UserError(
        f"{made.image} was made with different {', '.join(differ)}{more}; --changed makes what differs again, "
        "--output names another folder"
    )


class _Matcher:
    """Results by their content, and those that nothing was found for."""

    def __init__(self, session: Session, made: list[Made], taken: set[str]) -> None:
        self._session, self._taken = session, taken
        self._by_name = {one.name: one for one in made}
        self._by_content = defaultdict[str, list[Made]](list)
        for one in made:
            self._by_content[content(one.job)].append(one)
        self.other: list[tuple[Made, list[str]]] = []  # made with other settings
        self.foreign: list[Any] = []  # images without a card

    def match(self, tasks: list[Task]) -> Found:
        if not self._taken:
            return Found(tasks)
        jobs = [describe(task.request) for task in tasks]
        own = [self._own(content(job), task.name) for task, job in zip(tasks, jobs, strict=True)]
        pure = {task.name.casefold() for task, one in zip(tasks, own, strict=True) if one is None}
        owned = {one.name for one in own if one is not None}
        orphans = {name: one for name, one in self._by_name.items() if name not in owned}
        found = Found([])
        for task, job, one in zip(tasks, jobs, own, strict=True):
            if one is None:
                found.tasks.append(self._without(task, job, orphans, pure, found))
            else:
                found.tasks.append(replace(task, name=one.name, card=one.text, is_there=self._is_usable(one)))
        return found

    def _own(self, asked: str, name: str) -> Made | None:
        """The result of that content, which is then no other's; the one of that name if there are several."""
        several = self._by_content.get(asked, [])
        if not several:
            return None
        one = next((one for one in several if one.name == name), several[0])
        several.remove(one)
        return one

    def _is_usable(self, one: Made) -> bool:
        """Whether a result of the same request can stay: it is whole, of the same settings, and not to be overwritten."""
        if self._session.overwrite:
            return False
        differ = self._session.other_settings(one)
        if differ:
            self.other.append((one, differ))
        return one.is_whole and not differ

    def _without(self, task: Task, job: dict[str, Any], orphans: dict[str, Made], pure: set[str], found: Found) -> Task:
        """A task for which there is no result: in the place of what its row was before, or under a free name."""
        before = self._before(task, job, orphans)
        if before is not None:
            del orphans[before.name]
            found.changed[before.name] = before.other_request(job)
            return replace(task, name=before.name, card=before.text)
        if task.name.casefold() not in self._taken:
            return task
        if task.name not in self._by_name:
            self.foreign.append(self._session.folder / f"{task.name}.png")
            return task
        key, _, seed = task.name.rpartition("_seed")
        free = {name.rpartition("_seed")[0] for name in self._taken | pure if name.endswith(f"_seed{seed}")}
        name = f"{numbered(key, free)}_seed{seed}"
        self._taken.add(name.casefold())
        return replace(task, name=name)

    def _before(self, task: Task, job: dict[str, Any], orphans: dict[str, Made]) -> Made | None:
        """A result for the same image that nothing else asks for; the one in the task's own place first."""
        seed = task.request.seed
        places = [orphans[name] for name in (task.name, f"{task.number:03d}_seed{seed}") if name in orphans]
        others = [one for one in orphans.values() if one.job.get("seed") == seed]
        return next((one for one in (*places, *others) if _has_image(one, job)), None)


def _has_image(one: Made, job: dict[str, Any]) -> bool:
    """Whether a result was made from the same pixels, or from a file of that name."""
    recorded = str(one.job.get("image", "")).replace("\\", "/").rpartition("/")[2]
    return one.job.get("sha256") == job["sha256"] or recorded == str(job["image"]).replace("\\", "/").rpartition("/")[2]
