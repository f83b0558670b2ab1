"""sdist sweep: sdist run for every variant of a sweep, with one loaded model; then a picture of them all, and their tables."""

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..cli import parser
from ..config import Settings
from ..errors import UserError
from ..images import load_image, png_bytes, write_atomic
from ..outputs import output_files
from ..sheet import Row as SheetRow
from ..sheet import block, stack
from ..sweep import Sweep, Variant, changes, read_sweep
from .extras import need
from .run import Complaints, Plan, Row, edit_all, plan, read_index, result_name
from .session import SAME, Models, Session, settings_of

log = logging.getLogger("sdist")

Evaluate = Callable[[Session, Path], None]


@dataclass(frozen=True)
class Part:
    """A sweep's share: one variant, and what is to be made of it."""

    name: str
    session: Session
    plan: Plan


def main(args: argparse.Namespace) -> int:
    _check(args)
    sweep = read_sweep(args.sweep)
    settings = _settings(args, sweep)
    if args.list:
        print(*_listing(args, sweep, settings), sep="\n")
        return 0
    complain = Complaints()
    rows = [row for row in read_index(args.input, complain) if args.limit is None or row.number < args.limit]
    evaluate = _evaluator(args) if args.clip else None
    parts = _plan(args, sweep, rows, complain)
    for part in parts:
        _edit(part, complain)
    _write_grid(args, sweep, parts, rows)
    if evaluate is not None:
        _compare(args.output, parts, evaluate, complain)
    total = sum(len(part.plan.tasks) for part in parts)
    done, there = sum(part.session.made for part in parts), sum(part.plan.there for part in parts)
    print(f"{done} of {total} pictures made, {there} were there, {complain.count} problems")
    return 2 if complain.count else 0


def _check(args: argparse.Namespace) -> None:
    for name in ("seeds", "limit", "rows"):
        given = getattr(args, name)
        if given is not None and given < 1:
            raise UserError(f"--{name} must be at least 1, got {given}")
    if not args.list and (args.input is None or args.output is None):
        raise UserError("sdist sweep needs --input and --output, or --list")
    if args.clip is None and (args.dino or args.cache):
        raise UserError("--dino and --cache belong to an evaluation, which --clip asks for")


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


def _plan(args: argparse.Namespace, sweep: Sweep, rows: list[Row], complain: Complaints) -> list[Part]:
    """What every variant has to make; whatever can be refused is refused here, before the first edit."""
    models, parts = Models(), []
    for variant in sweep.variants:
        session = Session(_arguments(args, sweep, variant), models, variant.name)
        session.settings.timesteps.check(len(session.backbone.alphas_cumprod))
        parts.append(Part(variant.name, session, plan(session, rows, args, complain)))
    return parts


def _edit(part: Part, complain: Complaints) -> None:
    log.info("variant %s: %d pictures, %d are there", part.name, len(part.plan.tasks), part.plan.there)
    done = edit_all(part.session, part.plan.missing, lambda text: complain(f"{part.name}: {text}"))
    print(f"{part.name}: {done} of {len(part.plan.tasks)} pictures made, {part.plan.there} were there", flush=True)


def _write_grid(args: argparse.Namespace, sweep: Sweep, parts: Sequence[Part], rows: Sequence[Row]) -> None:
    """OUTPUT/grid.png: the first rows, each with its source and every variant's result; a grid of two keys as a matrix."""
    planned = {task.name for task in parts[0].plan.tasks}
    shown = [row for row in rows if result_name(row, parts[0].session.settings.seed) in planned][: args.rows]
    if not shown:
        return
    blocks = []
    for row in shown:
        source = load_image(row.image)
        caption = " -> ".join(filter(None, (f"{row.number:03d}: {row.source}".strip(), row.target)))
        blocks.append(block(caption, *_table(sweep, source, [_result(part.session, row, source) for part in parts])))
    path = args.output / "grid.png"
    write_atomic(path, png_bytes(stack(blocks)))
    print(path)


def _table(sweep: Sweep, source: Image.Image, results: list[Image.Image]) -> tuple[list[str], list[SheetRow]]:
    """Names of columns and rows of pictures."""
    if len(sweep.axes) != 2:
        return ["source", *(variant.name for variant in sweep.variants)], [("", [source, *results])]
    (down, labels), (across, others) = sweep.axes.items()
    n = len(others)
    rows = [(f"{down}={own}", [None, *results[i * n : (i + 1) * n]]) for i, own in enumerate(labels)]
    rows[0][1][0] = source
    return ["source", *(f"{across}={other}" for other in others)], rows


def _result(session: Session, row: Row, source: Image.Image) -> Image.Image:
    """The picture of the first seed; plain grey where there is none."""
    path = output_files(session.folder, result_name(row, session.settings.seed))["image"]
    return load_image(path) if path.exists() else Image.new("RGB", source.size, "lightgrey")


# --- scores ------------------------------------------------------------------------------------------------------------


def _evaluator(args: argparse.Namespace) -> Evaluate:
    """What `sdist evaluate` does, with pairs and encoders that are read once, before the edits."""
    need("sweep --clip", "pandas", "scipy", "matplotlib")
    from ..datasets.base import load_dataset
    from ..evaluation.reports import write_reports
    from ..evaluation.results import find_results
    from ..evaluation.scores import load_encoders, score
    from ..evaluation.summary import summarize_table
    from ..metrics.profile import check_profile
    from ..outputs import writable_folder

    profile = check_profile(args.profile)
    pairs = load_dataset(f"index:{args.input}")
    encoders = load_encoders(args.clip, args.dino, None, args.cache, args.device or "auto")

    def evaluate(session: Session, folder: Path) -> None:
        found = find_results(session.folder, pairs, session.settings.seed)
        table = score(pairs[: args.limit], found, encoders, profile)
        write_reports(writable_folder(folder), table, summarize_table(table, profile))

    return evaluate


def _compare(output: Path, parts: Sequence[Part], evaluate: Evaluate, complain: Complaints) -> None:
    """OUTPUT/evaluation/VARIANT for every variant that has results, and OUTPUT/comparison."""
    from . import compare

    folders = []
    for part in parts:
        folder = output / "evaluation" / part.name
        try:
            evaluate(part.session, folder)
        except UserError as error:
            complain(f"{part.name} is not evaluated: {error}")
        else:
            folders.append(str(folder))
    if folders:
        compare.main(parser().parse_args(["compare", *folders, "--output", str(output / "comparison")]))
