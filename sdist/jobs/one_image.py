"""What `sdist edit` makes and calls it: one request has one result, and another prompt, method or setting gets one beside it."""

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ..edits.outputs import check_inputs_stay, remove_parts, result_names, taken_names
from ..edits.request import Request
from ..edits.run_card import describe
from ..edits.stored_results import StoredResult, content, in_the_way, read_made
from ..errors import UserError
from ..files.digest import file_digest
from ..files.names import as_name, numbered, short_form
from .session import Session

log = logging.getLogger("sdist")


class NamedRequest(NamedTuple):
    """A request with the name of its result, which is there already or is to be made."""

    request: Request
    name: str
    is_there: bool


def named_file(session: Session, request: Request, name: str) -> NamedRequest:
    """The result of a request as the file of that name. Raises UserError if it is there and is something else."""
    there, path, job = session.look(), session.folder / f"{name}.png", describe(request)
    if session.overwrite:
        return NamedRequest(request, name, is_there=False)
    made = read_made(session.folder, [name], there)
    if not made:
        if (file := in_the_way(session.folder, name, {*map(str.casefold, there)}, job)) is not None:
            raise UserError(f"{file} exists, and no run card says that it is of this result; --overwrite replaces it")
        return NamedRequest(request, name, is_there=False)
    settings = session.other_settings(made[0])
    if settings and (method := made[0].method) not in ("", session.name):
        raise UserError(f"{path} was made by method {method}, this call is {session.name}; --overwrite replaces it")
    differ = [*made[0].other_request(job), *settings]
    if differ:
        raise UserError(f"{path} was made with a different {' and '.join(differ)}; --overwrite replaces it")
    return NamedRequest(request, name, is_there=session.is_whole(made[0]))


def named_results(session: Session, requests: Sequence[Request], method: str) -> list[NamedRequest]:
    """Those that are there keep their names, the others are IMAGE_METHOD_PROMPT_seedN, numbered where that is taken."""
    stem, listed = as_name(requests[0].image.stem), session.look()
    own = [name for name in result_names(listed) if name.startswith(f"{stem}_")]
    digest = cache(file_digest)  # one image, however many seeds
    jobs = [describe(request, digest) for request in requests]
    wanted = [content(job) for job in jobs]
    made = [one for one in read_made(session.folder, own, listed) if content(one.job) in wanted and _is_same(session, one)]
    found = [next((one for one in made if content(one.job) == each), None) for each in wanted]
    base = f"{stem}_{as_name(Path(method).stem)}_{short_form(requests[0].target or requests[0].instruction)}"
    new = {f"_seed{job['seed']}": job for job, one in zip(jobs, found, strict=True) if one is None}
    base = base if session.overwrite else numbered(base, _taken(session.folder, listed, new))
    return [_named(session, request, one, base) for request, one in zip(requests, found, strict=True)]


def _taken(folder: Path, listed: Collection[str], new: Mapping[str, dict[str, Any]]) -> set[str]:
    """The beginnings of names, in lower case, under which one of these jobs, by the ends of their names, would replace a file."""
    there = {*map(str.casefold, listed)}
    ends = [(name, end) for name in taken_names(listed) for end in new if name.endswith(end)]
    return {name.removesuffix(end) for name, end in ends if in_the_way(folder, name, there, new[end]) is not None}


def _is_same(session: Session, made: StoredResult) -> bool:
    """Whether a result was made with the settings of this session; not if nobody can tell."""
    try:
        return not session.other_settings(made)
    except UserError:
        return False


def _named(session: Session, request: Request, made: StoredResult | None, base: str) -> NamedRequest:
    if made is None:
        return NamedRequest(request, f"{base}_seed{request.seed}", is_there=False)
    return NamedRequest(request, made.name, is_there=not session.overwrite and session.is_whole(made))


def make_missing(session: Session, named: Sequence[NamedRequest], title: str) -> None:
    """Edits what is not there yet, all seeds together."""
    missing = [one for one in named if not one.is_there]
    for one in named:
        if one.is_there:
            log.info("already there: %s", session.folder / f"{one.name}.png")
            session.emit("there", session.folder / f"{one.name}.png", one.request)
    session.remove_stopped([one.name for one in named if one.is_there])
    check_inputs_stay(session.folder, [one.name for one in missing], {path for one in missing for path in one.request.inputs})
    prepared = [session.prepare(one.request) for one in missing]
    if prepared:
        session.check_writable()
        remove_parts(session.folder, {one.name for one in missing})
        session.edit(prepared, [one.name for one in missing], title)
        session.end_if_interrupted(done=True)
