"""sdist calibrate: the step and the threshold of LUSD for a model that nobody tuned."""

import argparse
import json
import logging
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..jobs.counts import at_least_one
from .arguments import Commands, json_argument, model_arguments, plugin_argument, settings_from
from .checks import check_input
from .messages import print_error

if TYPE_CHECKING:
    from ..config.settings import Settings
    from ..distillation.calibration import Calibration
    from ..edits.request import Request

log = logging.getLogger("sdist")

SCENES = 778  # seed of the scenes, which no table reports
ENOUGH = (6, 8)  # pairs, and draws of each: 0.15 of 7 draws is one draw, and pairs differ more than draws do


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "calibrate",
        help="find the step and the threshold of LUSD for a model",
        description="Tries draws at the sources of some pairs, edits nothing, and prints scale.step and scale.threshold by the "
        "rule of docs/methods.md, Step size.",
    )
    command.add_argument("--input", metavar="DIR|FORMAT:DIR",
                         help="pairs, as of sdist run (default: drawn scenes, for a model that knows them)")  # fmt: skip
    command.add_argument("--pairs", type=int, default=6, metavar="N", help="the first N pairs (default: 6)")
    command.add_argument("--draws", type=int, default=48, metavar="N", help="noises and timesteps per pair (default: 48)")
    command.add_argument("--method", default="lusd", metavar="NAME|YAML", help="that is to have the scale (default: lusd)")
    model_arguments(command)
    plugin_argument(command)
    json_argument(command)


def main(args: argparse.Namespace) -> int:
    at_least_one(pairs=args.pairs, draws=args.draws, parallel=args.parallel)
    if args.input is not None:
        check_input(args.input)
    from ..editors.calibration import calibrate, check_scaled
    from ..editors.loading import model_cache

    settings = settings_from(args, args.method)
    check_scaled(settings, args.method)
    requests = _scenes(settings, args.pairs) if args.input is None else _pairs(settings, args.input, args.pairs)
    if len(requests) < ENOUGH[0] or args.draws < ENOUGH[1]:
        log.warning(
            "%d x %d (pairs x draws) are few: below %d x %d step and threshold are largely chance",
            len(requests), args.draws, *ENOUGH,
        )  # fmt: skip
    scale = calibrate(model_cache.get(settings), requests, args.draws, args.parallel)
    report = _report(scale, settings, len(requests), args.draws)
    print(json.dumps(report, indent=1) if args.json else "\n".join(_lines(report)))
    return 0


def _scenes(settings: "Settings", count: int) -> list["Request"]:
    """Drawn scenes, of each kind of edit in turn. Raises UserError for a model that does not know them."""
    from ..edits.request import Request
    from ..files.in_memory import kept_file
    from ..models.catalogue import find_model
    from ..tinyworld.edits import KINDS, sample_edit

    if not find_model(settings.model, settings.model_config).knows_scenes:
        raise UserError(f"--model {settings.model} needs pairs that it knows: give --input FOLDER with index.csv and images/")
    pairs = [sample_edit(SCENES, i, list(KINDS)[i % len(KINDS)]) for i in range(count)]
    return [Request(kept_file(pair.source_image), pair.source, pair.target) for pair in pairs]


def _pairs(settings: "Settings", source: str, count: int) -> list["Request"]:
    """The first pairs of --input that can be read; others are told. Raises UserError where there is none."""
    from ..jobs.inputs import read_pairs
    from ..jobs.problems import ProblemReporter

    pairs = read_pairs(source, ProblemReporter(print_error))[:count]
    if not pairs:
        raise UserError(f"--input {source} has no pair that can be read")
    return [pair.request(settings.seed, settings.reads) for pair in pairs]


def _report(scale: "Calibration", settings: "Settings", pairs: int, draws: int) -> dict[str, Any]:
    """As plain data: the rule's values, those that the model has now, and what both mean."""
    from torch import cat

    values = {"by the rule": (scale.step, scale.threshold), "now": (settings.scale.step, settings.scale.threshold)}
    measured = {"latents_sd": scale.latents, "gradient_sd": float(cat(scale.sds).median()), "drift": scale.drift}
    scales = {name: _meaning(scale, *pair) for name, pair in values.items()}
    return {"model": settings.model, "pairs": pairs, "draws": draws, **measured, "path": scale.path, "scales": scales}


def _meaning(scale: "Calibration", step: float, threshold: float) -> dict[str, float]:
    """A scale with how far a run goes by it, and which share of the draws it refuses: of all images, and of the worst."""
    refused = scale.refused(threshold)
    return {"step": step, "threshold": threshold, "travel": scale.travel(step), "refused": fmean(refused), "worst": max(refused)}


def _lines(report: dict[str, Any]) -> list[str]:
    """For people; the last two lines are for a command and for a yaml."""
    text = (
        "step {step:.3g} goes {travel:.2f} SDs of the latents; threshold {threshold:.3g} refuses {refused:.0%} of the draws, "
        "of the worst image {worst:.0%}"
    )
    step, threshold = (f"{report['scales']['by the rule'][name]:.3g}" for name in ("step", "threshold"))
    return [
        "{model}: {pairs} pairs, {draws} draws each".format(**report),
        "SD of the latents {latents_sd:.3g}, of the gradients {gradient_sd:.3g} (median); drift {drift:.2f}".format(**report),
        *(f"{name}: {text.format(**values)}" for name, values in report["scales"].items()),
        f"--set scale.step={step} scale.threshold={threshold}",
        f"scale: {{step: {step}, threshold: {threshold}}}",
    ]
