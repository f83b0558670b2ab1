"""sdist sweep: sdist run for every variant of a sweep, with one loaded model; then a picture of them all, and their tables."""

import argparse
import json
import logging
import time

from ..config.settings import Settings
from ..config.sweep import Sweep, Variant, changes, read_sweep
from ..editors.loading import LoadedModels
from ..errors import UserError
from ..files.storage import need_local
from ..jobs.engines.local import edit_all
from ..jobs.plan import WHOLE, Plan, Row, plan, read_rows, result_name
from ..jobs.session import SAME, Session, settings_of
from ..jobs.summary import Complaints, summary
from ..jobs.sweep_outputs import compare_all, evaluator, write_grid
from .run import check_counts

log = logging.getLogger("sdist")


def main(args: argparse.Namespace) -> int:
    _check(args)
    sweep = read_sweep(args.sweep)
    settings = _settings(args, sweep)
    if args.list:
        print(*_listing(args, sweep, settings), sep="\n")
        return 0
    complain = Complaints()
    rows = [row for row in read_rows(args.input, complain, args.shard) if args.first is None or row.number < args.first]
    evaluate = evaluator(args) if args.clip else None
    work, start = _plan(args, sweep, rows, complain), time.perf_counter()
    for session, own in work.items():
        _edit(session, own, complain)
    seconds = time.perf_counter() - start
    if args.shard == WHOLE and not any(own.left for own in work.values()):
        if shown := _shown(work, rows)[: args.rows]:
            print(write_grid(args.output / "grid.png", sweep, list(work), shown))
        if evaluate is not None:
            compare_all(args.output, list(work), evaluate, complain)
    print(*summary(work, seconds, complain.count), sep="\n")
    return 2 if complain.count else 0


def _check(args: argparse.Namespace) -> None:
    check_counts(args, "seeds", "first", "limit", "rows")
    if not args.list and (args.input is None or args.output is None):
        raise UserError("sdist sweep needs --input and --output, or --list")
    if args.output is not None:
        need_local(args.output, "sdist sweep")
    if args.clip is None and (args.dino or args.cache):
        raise UserError("--dino and --cache belong to an evaluation, which --clip asks for")
    if args.clip is not None and args.shard != WHOLE:
        raise UserError("--clip evaluates all pictures: give it to a call without --shard, when all shards are made")


# --- variants ----------------------------------------------------------------------------------------------------------


def _arguments(args: argparse.Namespace, sweep: Sweep, variant: Variant) -> argparse.Namespace:
    """Those of `sdist run` for one variant; what --set says wins."""
    overrides = [f"log.group={json.dumps(sweep.name)}", *variant.overrides, *args.overrides]
    output = args.output and args.output / variant.name
    return argparse.Namespace(**{**vars(args), "method": variant.method, "overrides": overrides, "output": output})


def _settings(args: argparse.Namespace, sweep: Sweep) -> dict[str, Settings]:
    """The settings of every variant, so that a wrong value is known before anything is made; UserError if two are the same."""
    found: dict[str, Settings] = {}
    same: dict[str, str] = {}
    for variant in sweep.variants:
        try:
            found[variant.name] = settings_of(_arguments(args, sweep, variant), variant.method)
        except UserError as error:
            raise UserError(f"sweep {sweep.name}, variant {variant.name}: {error}") from None
        plain = json.dumps({key: value for key, value in found[variant.name].plain().items() if key not in SAME})
        if plain in same:
            raise UserError(f"sweep {sweep.name}: {same[plain]} and {variant.name} come to the same settings")
        same[plain] = variant.name
    return found


def _listing(args: argparse.Namespace, sweep: Sweep, settings: dict[str, Settings]) -> list[str]:
    """A line a variant: what it changes against the base of the sweep, or against the first variant if there is none."""
    first = next(iter(settings))
    base = settings[first] if sweep.base is None else settings_of(_arguments(args, sweep, Variant("", sweep.base)), sweep.base)
    before = base.plain()
    lines = [f"{sweep.name}: {len(settings)} variants, told by what they change against {sweep.base or first}"]
    width = max(map(len, settings))
    for name, own in settings.items():
        told = changes(before | {"log": None}, own.plain() | {"log": None})
        lines.append(f"  {name:{width}}  {' '.join(told)}".rstrip())
    return lines


# --- pictures ----------------------------------------------------------------------------------------------------------


def _plan(args: argparse.Namespace, sweep: Sweep, rows: list[Row], complain: Complaints) -> dict[Session, Plan]:
    """What every variant has to make; what can be refused is refused here, before the first edit."""
    models, work, limit = LoadedModels(kept=1), dict[Session, Plan](), args.limit
    for variant in sweep.variants:
        session = Session(_arguments(args, sweep, variant), models, variant.name)
        session.settings.timesteps.check(session.backbone.last_timestep)
        work[session] = own = plan(session, rows, argparse.Namespace(**{**vars(args), "limit": limit}), complain)
        limit = None if limit is None else limit - len(own.todo)
    return work


def _edit(session: Session, own: Plan, complain: Complaints) -> None:
    """Makes what is missing of a variant; a problem of one variant does not end the others."""
    log.info("variant %s: %d pictures, %d are there", session.name, len(own.names), own.there)
    try:
        edit_all(session, own, lambda text: complain(f"{session.name}: {text}"))
    except UserError as error:
        complain(f"{session.name}: {error}")
    print(f"{session.name}: {session.made} of {len(own.names)} pictures made, {own.there} were there", flush=True)


def _shown(work: dict[Session, Plan], rows: list[Row]) -> list[Row]:
    """Rows that could be planned."""
    first, own = next(iter(work.items()))
    planned = {*own.names}
    return [row for row in rows if result_name(row, first.settings.seed) in planned]
