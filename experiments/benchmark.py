"""The benchmark of `sdist bench`, and how the time of an image depends on images in flight and on acceptance.

    python experiments/benchmark.py                     # what docs/performance.md shows; half an hour on two cores
    python experiments/benchmark.py --model sd15        # on a GPU: 64 x 64 latents, fp16

Writes performance.json and performance.png to --output.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt

from sdist.benchmark.measure import Stopwatch, measure, prepare_edits
from sdist.config.build import load_settings
from sdist.config.settings import Settings
from sdist.editors.base import Observers
from sdist.editors.loading import LoadedMethod, load_method

PARALLEL = (1, 2, 4, 8)
THRESHOLDS = (0.0, 1.0, 2.0)  # times the model's own


def main() -> int:
    args = parse()
    arguments = {k: v for k, v in (("model", args.model), ("device", args.device), ("steps", args.steps)) if v is not None}
    settings = load_settings("lusd", args.overrides, **arguments)
    by_parallel = [timed(args, settings, n) for n in PARALLEL]
    threshold = settings.editor.filter.threshold
    variants = [
        load_settings("lusd", [*args.overrides, f"filter.threshold={factor * threshold}"], **arguments) for factor in THRESHOLDS
    ]
    acceptance = [{**timed(args, variant, None), "threshold": variant.editor.filter.threshold} for variant in variants]
    ratios = {name: measure(replace(settings, compile=name), args.edits, args.repetitions, None, print) for name in args.engines}
    figures = {"model": settings.model, "steps": settings.editor.steps, "edits": args.edits, "ratios": ratios,
               "parallel": by_parallel, "acceptance": acceptance}  # fmt: skip
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "performance.json").write_text(json.dumps(figures, indent=1) + "\n")
    plot(figures, args.output / "performance.png")
    return 0


def timed(args: argparse.Namespace, settings: Settings, parallel: int | None) -> dict[str, float]:
    """All edits in one queue with so many draws at once."""
    method = load_method(settings)
    with tempfile.TemporaryDirectory() as folder:
        images = prepare_edits(Path(folder), method, args.edits)
        one_step = replace(settings, editor=replace(settings.editor, steps=1))
        LoadedMethod(one_step, method.model).edit(images, Observers(parallel=parallel))
        with Stopwatch(method.model) as watch:
            start = time.perf_counter()
            results = method.edit(images, Observers(parallel=parallel))
            seconds = (time.perf_counter() - start) / len(images)
    accepted = settings.editor.steps * len(images) / sum(sum(result.attempts) for result in results)
    row = {"parallel": results[0].parallel, "seconds": seconds, "acceptance": accepted, "rows": watch.rows / len(images)}
    print(json.dumps(row), flush=True)
    return row


def plot(figures: dict, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot([r["parallel"] for r in figures["parallel"]], [r["seconds"] for r in figures["parallel"]], "o-", label="queue")
    for mode, style in (("reference", "--"), ("single", ":")):
        left.axhline(figures["ratios"]["none"]["seconds_per_image"][mode]["median"], linestyle=style, color="grey", label=mode)
    left.set(xlabel="draws at once (--parallel)", ylabel="seconds per image", xscale="log", ylim=(0, None))
    left.set_xticks(PARALLEL, [str(n) for n in PARALLEL])
    left.minorticks_off()
    left.legend()
    right.plot([r["acceptance"] for r in figures["acceptance"]], [r["seconds"] for r in figures["acceptance"]], "o-")
    right.set(xlabel="share of draws accepted", ylabel="seconds per image", xlim=(0, 1.02), ylim=(0, None))
    figure.suptitle(f"LUSD, {figures['steps']} steps, {figures['edits']} edits, {figures['model']}")
    figure.savefig(path, dpi=110)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--device")
    parser.add_argument("--steps", type=int, default=20, help="accepted steps (default: 20)")
    parser.add_argument("--edits", type=int, default=16)
    parser.add_argument("--engines", nargs="+", default=["none", "openvino"], help="of --compile (default: none openvino)")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--set", nargs="+", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--output", type=Path, default=Path("docs"))
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
