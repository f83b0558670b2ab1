"""The table of methods: every method edits the same held-out tinyworld pairs, in one configuration each.

    python experiments/compare_methods.py --work runs/compare --pairs 60          # resumable; hours on two cores
    python experiments/compare_methods.py --work runs/compare --pairs 60 --methods lusd,dds --seeds 2
    python experiments/compare_methods.py --work runs/compare --part more --methods lusd,lusd:steps=100+loss.scale=2  # variant

Edits are kept in the form of `sdist run`; what is there is not made again. Writes results.json, a grid of pictures, a figure and
its part of results.md (--part) to --output. What is measured of an edit says experiments/edit_measures.py; beside it stand the
metrics of PIE-Bench and of LUSD's paper, by tinyworld's own CLIP, and the rows that the network was given.
"""

import argparse
import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pandas as pd
from edit_measures import background_error, is_success
from PIL import Image, ImageDraw

import sdist
from sdist.cli import main as sdist_command
from sdist.config.build import load_settings
from sdist.models.loading import load_backbone
from sdist.tinyworld.edits import KINDS, EditPair, sample_edit, write_pairs
from sdist.tinyworld.instructions import instructions_of
from sdist.tinyworld.judge import look
from sdist.tinyworld.truth import Truth, autoencoded, distance

METHODS = (
    "localflow", "flowedit", "dvrf", "flowalign", "vimaedit", "vimaedit_dpmpp", "p2p", "p2p_virtual", "p2p_edit_friendly",
    "masactrl", "sdedit", "ledits_pp", "lusd", "lusd_no_spatial", "lusd_no_normalization", "lusd_no_annealing",
    "lusd_no_filtering", "dds", "dds_lusd", "cds", "sds", "sbp", "csd", "nfsd", "pds", "ssd",
)  # fmt: skip
NOTHING = "do_nothing"  # the source itself: what success and background error mean without an edit
RESAMPLES = 10_000  # of the bootstrap
FURTHER = ("psnr", "mse", "ssim", "clip_whole", "clip_edited", "clip_auc", "l1_star")  # of sdist evaluate, with tinyworld's CLIP


@dataclass(frozen=True)
class Measurement:
    """One edit; `seconds` are its share of its batch's optimization."""

    method: str
    kind: str
    pair: int
    seed: int
    success: bool
    background_error: float
    distance: float | None  # to the truth; None for an addition
    seconds: float
    draws: float  # per step
    steps: int


class Measured(NamedTuple):
    """All edits of a method; `rows` are those that the network was given per edit, `further` the metrics of FURTHER."""

    method: str
    edits: list[Measurement]
    rows: float
    further: pd.Series


def main() -> int:
    args = parse()
    args.work /= f"from_{args.first}"
    pairs, _ = known_pairs(args.pair_seed, args.first, args.pairs)
    write_pairs(args.work / "input", pairs, instructions_of(pairs))
    methods = args.methods.split(",")
    if args.workers == 1:
        results = list(map(partial(measured, args), methods))
    else:
        with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn")) as pool:
            results = list(pool.map(partial(measured, args), methods))
    write_results(args, results, pairs)
    return 0


@cache
def known_pairs(seed: int, first: int, count: int) -> tuple[list[EditPair], list[Truth]]:
    """The pairs, and the truth of each as the autoencoder can show it."""
    pairs = [sample_edit(seed, i, list(KINDS)[i % len(KINDS)]) for i in range(first, first + count)]
    model = load_backbone("tinyworld", "cpu")  # its autoencoder is that of all models of this world
    return pairs, [autoencoded(pair, lambda x: model.decode(model.encode(x))) for pair in pairs]


def measured(args: argparse.Namespace, method: str) -> Measured:
    """A method's edits, made where they are missing, and what is measured of them."""
    pairs, truths = known_pairs(args.pair_seed, args.first, args.pairs)
    if method != NOTHING:
        edit_all(args, method)
    edits = measure(args, method, pairs, truths)
    result = Measured(method, edits, network_rows(args, method, edits), further(args, method))
    print(line(result), flush=True)
    return result


def edit_all(args: argparse.Namespace, method: str) -> None:
    """All edits of a method that are not there yet."""
    name, settings = settings_of(args, method)
    more = ["--seeds", str(args.seeds), "--model", args.model, "--quiet", *(["--set", *settings] if settings else [])]
    if load_settings(name).editor.stepwise:
        more += ["--parallel", str(args.batch)]
    code = sdist_command(
        ["run", "--input", str(args.work / "input"), "--output", str(args.work / method), "--method", name, *more]
    )
    if code:
        raise SystemExit(code)


def settings_of(args: argparse.Namespace, method: str) -> tuple[str, list[str]]:
    """The name of a method's yaml, and what is changed of it."""
    name, _, changed = method.partition(":")
    return name, [*args.set, *(changed.split("+") if changed else [])]


def network_rows(args: argparse.Namespace, method: str, edits: Sequence[Measurement]) -> float:
    """Rows that the network is given per edit: counted in an edit of the first pair, and where draws vary, by their mean."""
    if method == NOTHING:
        return 0.0
    name, settings = settings_of(args, method)
    loaded, counts = sdist.load(name, args.model, settings=settings), list[int]()
    row = pd.read_csv(args.work / "input" / "index.csv").iloc[0]
    order = row.instruction if "instruction" in loaded.editor.reads else ""
    image = args.work / "input" / "images" / row.img_path
    request = sdist.Request(image, row.source_prompt, row.target_prompt, instruction=order)

    denoise = loaded.model.denoise

    def counted(z_t: Any, *others: Any) -> Any:
        counts.append(len(z_t))
        return denoise(z_t, *others)

    with patch.object(loaded.model, "denoise", counted):
        (result,) = loaded.edit([loaded.prepare(request)])
    own = sum(result.attempts)
    if not counts:
        return float("nan")  # of an editor of diffusers, which calls the network itself
    return sum(counts) * (float(np.mean([e.draws * e.steps for e in edits])) / own if own else 1.0)


def further(args: argparse.Namespace, method: str) -> pd.Series:
    """What sdist evaluate says of all edits."""
    results = args.work / "input" / "images" if method == NOTHING else args.work / method
    dataset, output = f"tinyworld:{args.work / 'input'}", args.work / "evaluation" / method
    summary = sdist.evaluate(dataset, results, output, clip="tinyworld", overwrite=True).summary
    return summary.loc["all"]["mean"].reindex(FURTHER)


def measure(args: argparse.Namespace, method: str, pairs: list[EditPair], truths: list[Truth]) -> list[Measurement]:
    rows = []
    for seed in range(1 if method == NOTHING else args.seeds):
        pictures, cards = zip(*(load(args.work / method, i, seed, pair) for i, pair in enumerate(pairs)), strict=True)
        for i, (pair, picture, card, seen) in enumerate(zip(pairs, pictures, cards, look(pictures), strict=True)):
            seconds = sum(card["seconds"].get(part, 0.0) for part in ("optimize", "edit")) if card else 0.0
            attempts = card["attempts"] if card else []
            draws, steps = float(np.mean(attempts or 0)), len(attempts)  # 0 where they are not counted
            error, far, fine = background_error(pair, picture), distance(pair, picture, truths[i]), is_success(pair, seen)
            rows.append(Measurement(method, pair.kind, args.first + i, seed, fine, error, far, seconds, draws, steps))
    return rows


def load(folder: Path, index: int, seed: int, pair: EditPair) -> tuple[Image.Image, dict | None]:
    """An edit and its run card; the source and None where nothing is done."""
    if folder.name == NOTHING:
        return pair.source_image, None
    name = f"{index:03d}_seed{seed}"
    return Image.open(folder / f"{name}.png").convert("RGB"), json.loads((folder / f"{name}.json").read_text())


# --- results -----------------------------------------------------------------------------------------------------------


def interval(values: Sequence[float], statistic: Callable = np.mean) -> tuple[float, float, float]:
    """The statistic and its 95 % bootstrap interval."""
    data = np.asarray(values, float)
    low, high = np.percentile(statistic(data[picks(len(data))], axis=1), (2.5, 97.5))
    return float(statistic(data)), float(low), float(high)


def picks(count: int) -> np.ndarray:
    """Which values each resample takes; the same for all methods, so that resamples are paired."""
    return np.random.default_rng(0).integers(0, count, (RESAMPLES, count))


def p_value(values: Sequence[float], others: Sequence[float], statistic: Callable = np.mean) -> float:
    """Two-sided, of a difference between two methods on the same edits, by the paired bootstrap."""
    chosen = picks(len(values))
    differences = statistic(np.asarray(values, float)[chosen], axis=1) - statistic(np.asarray(others, float)[chosen], axis=1)
    return float(min(1.0, 2 * min((differences <= 0).mean(), (differences >= 0).mean())))


def summary(rows: list[Measurement]) -> dict[str, tuple[float, float, float]]:
    return {
        "success": interval([100.0 * r.success for r in rows]),
        "background_error": interval([r.background_error for r in rows]),
        "distance": interval(known(rows), np.median),
        "nearer": interval([100.0 * (d < 1) for d in known(rows)]),
    }


def known(rows: list[Measurement]) -> list[float]:
    """Distances to the truth, where there is one."""
    return [r.distance for r in rows if r.distance is not None] or [np.nan]


def line(result: Measured, best: Measured | None = None) -> str:
    """One row of the Markdown table: figures with intervals, cost, success by kind, p of its differences to the best."""
    rows = result.edits
    shown, digits = summary(rows), {"success": 1, "background_error": 1, "distance": 2, "nearer": 0}
    cells = ["{:.{d}f} ({:.{d}f} to {:.{d}f})".format(*shown[name], d=d) for name, d in digits.items()]
    cells += [f"{result.rows:.0f}", f"{np.mean([r.seconds for r in rows]):.2f}"]
    kinds = [[r.success for r in rows if r.kind == kind] for kind in KINDS]
    cells += [f"{100 * np.mean(k):.0f}" if k else "" for k in kinds]
    if best is not None:
        cells += [f"{p:.3f}" for p in significance(result, best)]
    return " | ".join([f"| {result.method}", *cells]) + " |"


def significance(result: Measured, best: Measured) -> tuple[float, float]:
    """p of the differences in success and in distance."""
    rows = result.edits * (len(best.edits) // len(result.edits))  # doing nothing is there once, whatever the seeds
    return (
        p_value([r.success for r in rows], [r.success for r in best.edits]),
        p_value(known(rows), known(best.edits), np.median),
    )


PART = """    python experiments/compare_methods.py --work runs/compare --pairs {pairs} --seeds {seeds}{more}

{pairs} held-out edit pairs of tinyworld, {seeds} seed(s), one configuration per method: that of its
yaml in experiments/{changed}. In brackets 95 % bootstrap intervals over edits.

- **success**: the judge sees the target's place and all its things in their colours, and nothing that was to go. The columns on
  the right are success by kind of edit.
- **background error**: mean absolute difference to the source, in 0..255, where nothing should change (the head of
  experiments/edit_measures.py says where that is).
- **distance to the truth**: |edit - t| / |s - t|, the median over edits that are no additions; 0 is perfect, 1 what doing nothing
  scores. Beside it the share of edits below 1.
- **rows**: what the network is given per edit, one row being one image with one prompt at one noise level.
- **s**: seconds per edit, its share of a queue of {batch} on {threads}.
- **p**: of the differences in success and in distance to `{best}`, which has the least distance, by the paired bootstrap.

{table}

As PIE-Bench and LUSD's paper measure: PSNR, MSE and SSIM to the source outside of the mask of the change (not of additions), CLIP
of the whole picture and inside the mask, CLIP-AUC and L1\\*, by tinyworld's own CLIP ([evaluation](evaluation.md)).

{further}

`{nothing}` is the source itself. [{stem}.json]({stem}.json) has every edit. The first {shown} pairs:

![source, methods, target]({stem}.jpg)

Success against background error; the line is the frontier, which no method is better than in both:

![success against background error]({stem}.png)
"""


def write_results(args: argparse.Namespace, results: list[Measured], pairs: list[EditPair]) -> None:
    """The json, the pictures, the figure and the part of results.md."""
    args.output.mkdir(parents=True, exist_ok=True)
    shown = pairs[: args.shown]
    stem = "results" if args.part == "methods" else f"results_{args.part}"
    more = "" if args.part == "methods" else f" --part {args.part} --methods {args.methods} --shown {args.shown}"
    more += f" --model {args.model}" if args.model != "tinyworld" else ""
    more += f" --set {' '.join(args.set)}" if args.set else ""
    best = min(results, key=lambda result: float(np.nan_to_num(np.median(known(result.edits)), nan=np.inf)))
    text = PART.format(
        pairs=len(pairs), seeds=args.seeds, batch=args.batch, threads=machine(args), table=table(results, best), shown=len(shown),
        stem=stem, more=more, changed=", but with what --set says" if args.set else "", best=best.method, nothing=NOTHING,
        further=further_table(results),
    )  # fmt: skip
    fill(args.output / "results.md", args.part, text)
    data = {"pairs": len(pairs), "first": args.first, "seeds": args.seeds, "pair_seed": args.pair_seed,
            "methods": {result.method: columns(result) for result in results}}  # fmt: skip
    (args.output / f"{stem}.json").write_text(json.dumps(rounded(data), separators=(",", ":")) + "\n")
    names = (args.columns or args.methods).split(",")
    grid(args, names, shown).save(args.output / f"{stem}.jpg", quality=args.quality)
    draw_frontier(results, args.output / f"{stem}.png")


def columns(result: Measured) -> dict[str, Any]:
    """What is known of a method, of its edits a list per column; pairs come in their order, seed by seed."""
    names = [field.name for field in fields(Measurement) if field.name not in {"method", "kind", "pair", "seed"}]
    edits = {name: [getattr(edit, name) for edit in result.edits] for name in names} | {
        "success": [int(edit.success) for edit in result.edits]
    }
    return {"summary": summary(result.edits), "rows": result.rows, "further": dict(result.further.dropna()), "edits": edits}


def draw_frontier(results: Sequence[Measured], path: Path) -> None:
    """Success against background error, with those joined that no method is better than in both."""
    from matplotlib.figure import Figure

    points = {r.method: (summary(r.edits)["background_error"][0], summary(r.edits)["success"][0]) for r in results}
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    for name, (error, success) in points.items():
        axes.plot(error, success, "o", ms=5)
        axes.annotate(name, (error, success), (4, 3), textcoords="offset points", fontsize=7)
    axes.plot(*zip(*frontier(points), strict=True), "k-", lw=1, zorder=0)
    axes.set(xlabel="background error, 0..255 (less is better)", ylabel="success, %")
    figure.savefig(path, dpi=90)
    Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE, colors=32).save(path, optimize=True)


def frontier(points: dict[str, tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, gain) than which none has both less cost and more gain, by their cost."""
    best = list[tuple[float, float]]()
    for cost, gain in sorted(points.values(), key=lambda point: (point[0], -point[1])):
        if not best or gain > best[-1][1]:
            best.append((cost, gain))
    return best


def rounded(data: Any) -> Any:
    """Plain data with five significant digits."""
    if isinstance(data, dict):
        return {key: rounded(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [rounded(value) for value in data]
    return float(f"{data:.5g}") if isinstance(data, float) else data


def fill(page: Path, part: str, text: str) -> None:
    """Puts the text between <!-- part --> and <!-- /part --> of a page that people write, or at its end."""
    begin, end = f"<!-- {part} -->", f"<!-- /{part} -->"
    before, marker, rest = (page.read_text(encoding="utf-8") if page.exists() else "").partition(begin)
    after = rest.partition(end)[2] if marker else "\n"
    page.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")


def table(results: Sequence[Measured], best: Measured) -> str:
    head = ["method", "success, %", "background error", "distance to the truth", "nearer than the source, %", "rows", "s", *KINDS,
            "p of success", "p of distance"]  # fmt: skip
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(line(result, best) for result in results)])


def further_table(results: Sequence[Measured]) -> str:
    table = pd.DataFrame({result.method: result.further for result in results}).T
    table["mse"] *= 1e4
    return table.rename(columns={"mse": "mse x 10^4"}).to_markdown(floatfmt=".3g")


def machine(args: argparse.Namespace) -> str:
    """Where the edits were made, as their cards say."""
    cards = [json.loads(path.read_text())["machine"] for path in args.work.glob("*/*_seed*.json")]
    machines = sorted({f"{card['device']} with {card['threads']} thread(s)" for card in cards})
    return ", ".join(machines) or "nothing"


def grid(args: argparse.Namespace, methods: list[str], pairs: list[EditPair]) -> Image.Image:
    """One row per pair: source, every method, the rendered target; names on top."""
    names = ["source", *(m for m in methods if m != NOTHING), "target"]
    sheet = Image.new("RGB", (len(names) * 100, 16 + len(pairs) * 100), "white")
    for x, name in enumerate(names):
        ImageDraw.Draw(sheet).text((x * 100 + 4, 2), name.removeprefix("lusd_"), fill="black")
    for i, pair in enumerate(pairs):
        shown = [pair.source_image, *(load(args.work / m, i, 0, pair)[0] for m in names[1:-1]), pair.target_image]
        for x, picture in enumerate(shown):
            sheet.paste(picture.resize((98, 98), Image.Resampling.LANCZOS), (x * 100, 16 + i * 100))
    return sheet


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the edits, which are kept in WORK/from_FIRST/METHOD")
    parser.add_argument("--output", type=Path, default=Path("docs"))
    parser.add_argument("--part", default="methods", help="of results.md that is written, and of the names of its files")
    parser.add_argument("--methods", default=",".join([NOTHING, *METHODS]))
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, help="number of the first pair")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--pair-seed", type=int, default=2026)
    parser.add_argument("--batch", type=int, default=12, help="edits of a queue at once")
    parser.add_argument("--workers", type=int, default=1, help="methods at once, each in a process of its own")
    parser.add_argument("--columns", help="methods in the grid of pictures, comma-separated (default: all)")
    parser.add_argument("--model", default="tinyworld", help="that edits; its autoencoder must be tinyworld's")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of every method, as for sdist run")
    parser.add_argument("--quality", type=int, default=80, help="of the picture's JPEG")
    parser.add_argument("--shown", type=int, default=8, help="pairs in the grid of pictures")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
