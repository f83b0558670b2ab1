"""What `sdist edit` makes and calls it: one request has one result, and another prompt, method or setting gets one beside it."""

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..edits.made import Made, content, read_made
from ..edits.outputs import remove_parts, result_names
from ..edits.request import Request
from ..edits.run_card import describe, file_digest
from ..errors import UserError
from ..files.names import as_name, numbered, short_form
from .session import Session

log = logging.getLogger("sdist")


class Named(NamedTuple):
    """A request with the name of its result, which is there already or is to be made."""

    request: Request
    name: str
    is_there: bool


def named_file(session: Session, request: Request, name: str) -> Named:
    """The result of a request as the file of that name. Raises UserError if it is there and is something else."""
    there = session.look()
    if f"{name}.png" not in there or session.overwrite:
        return Named(request, name, is_there=False)
    path = session.folder / f"{name}.png"
    made = read_made(session.folder, [name], there)
    if not made:
        raise UserError(f"{path} exists and has no run card; --overwrite replaces it")
    differ = [*made[0].other_request(describe(request)), *session.other_settings(made[0])]
    if differ:
        raise UserError(f"{path} was made with a different {' and '.join(differ)}; --overwrite replaces it")
    return Named(request, name, is_there=made[0].is_whole)


def named_results(session: Session, requests: Sequence[Request], method: str) -> list[Named]:
    """Those that are there keep their names, the others are IMAGE_METHOD_PROMPT_seedN, numbered where that is taken."""
    stem, listed = as_name(requests[0].image.stem), session.look()
    own = [name for name in result_names(listed) if name.startswith(f"{stem}_")]
    digest = cache(file_digest)  # one image, however many seeds
    wanted = [content(describe(request, digest)) for request in requests]
    made = [one for one in read_made(session.folder, own, listed) if content(one.job) in wanted and _is_same(session, one)]
    found = [next((one for one in made if content(one.job) == each), None) for each in wanted]
    base = f"{stem}_{as_name(Path(method).stem)}_{short_form(requests[0].target or requests[0].instruction)}"
    new = [request.seed for request, one in zip(requests, found, strict=True) if one is None]
    taken = {name.casefold().removesuffix(f"_seed{seed}") for name in own for seed in new if name.endswith(f"_seed{seed}")}
    base = base if session.overwrite else numbered(base, taken)
    return [_named(session, request, one, base) for request, one in zip(requests, found, strict=True)]


def _is_same(session: Session, made: Made) -> bool:
    """Whether a result was made with the settings of this session; not if nobody can tell."""
    try:
        return not session.other_settings(made)
    except UserError:
        return False


def _named(session: Session, request: Request, made: Made | None, base: str) -> Named:
    if made is None:
        return Named(request, f"{base}_seed{request.seed}", is_there=False)
    return Named(request, made.name, is_there=made.is_whole and not session.overwrite)


def make_missing(session: Session, named: Sequence[Named], title: str) -> None:
    """Edits what is not there yet, all seeds together."""
    missing = [one for one in named if not one.is_there]
    for one in named:
        if one.is_there:
            log.info("already there: %s", session.folder / f"{one.name}.png")
            session.tell("there", session.folder / f"{one.name}.png", one.request)
    prepared = [session.prepare(one.request) for one in missing]
    if prepared:
        session.check_writable()
        remove_parts(session.folder, {one.name for one in missing})
        session.edit(prepared, [one.name for one in missing], title)
        session.end_if_interrupted(done=True)
