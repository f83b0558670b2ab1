"""The table of methods: every method edits the same held-out tinyworld pairs, in one configuration each.

    python experiments/compare_methods.py --work runs/compare --pairs 60          # resumable; hours on two cores
    python experiments/compare_methods.py --work runs/compare --pairs 60 --methods lusd,dds --seeds 2
    python experiments/compare_methods.py --work runs/compare --part more --methods lusd,lusd:steps=100+loss.scale=2  # variant

Edits are kept in the form of `sdist run`; what is there is not made again. Writes results.json, a grid of pictures and its part
of results.md (--part) to --output. Measured are, for every edit:

success: the judge sees the target's place and pairs, and none of the pairs that the edit was to take away.
background error: mean absolute difference to the source, in 0..255, outside the mask of the change, dilated by 4 pixels. What
    is added may stand anywhere, so an addition is measured outside the square, as large as the box of the rendered addition
    and dilated alike, inside which the edit itself changed most. A change of background is measured inside the things that stay.
distance to the truth: |edit - t| / |s - t| over all pixels, with s and t the rendered source and target after one trip through
    the autoencoder: 0 is perfect, 1 what doing nothing scores. Not for additions, which may stand anywhere.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation, uniform_filter

from sdist.cli import main as sdist
from sdist.config.build import load_settings
from sdist.models.loading import load_backbone
from sdist.tinyworld.edits import KINDS, EditPair, sample_edit, write_pairs
from sdist.tinyworld.instructions import instructions_of
from sdist.tinyworld.judge import Facts, facts, look
from sdist.tinyworld.truth import Truth, autoencoded, distance

METHODS = (
    "sds", "dds", "dds_object", "cds", "sbp", "lusd", "dds_lusd", "lusd_no_spatial", "lusd_no_normalization",
    "lusd_no_annealing", "lusd_no_filtering",
)  # fmt: skip
NOTHING = "do_nothing"  # the source itself: what success and background error mean without an edit
DILATION = 4  # pixels
RESAMPLES = 10_000  # of the bootstrap


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
    draws: float


def main() -> int:
    args = parse()
    numbers = range(args.first, args.first + args.pairs)
    pairs = [sample_edit(args.pair_seed, i, list(KINDS)[i % len(KINDS)]) for i in numbers]
    args.work /= f"from_{args.first}"
    write_pairs(args.work / "input", pairs, instructions_of(pairs))
    model = load_backbone("tinyworld", "cpu")  # its autoencoder is that of all models of this world
    rows, truths = [], [autoencoded(pair, lambda x: model.decode(model.encode(x))) for pair in pairs]
    for method in args.methods.split(","):
        if method != NOTHING:
            edit_all(args, method)
        rows += measure(args, method, pairs, truths)
        print(line(method, [r for r in rows if r.method == method]), flush=True)
    write_results(args, rows, pairs)
    return 0


def edit_all(args: argparse.Namespace, method: str) -> None:
    """All edits of a method that are not there yet."""
    name, _, changed = method.partition(":")
    settings = [*args.set, *(changed.split("+") if changed else [])]
    more = ["--seeds", str(args.seeds), "--model", args.model, "--quiet", *(["--set", *settings] if settings else [])]
    if load_settings(name).editor.stepwise:
        more += ["--parallel", str(args.batch)]
    code = sdist(["run", "--input", str(args.work / "input"), "--output", str(args.work / method), "--method", name, *more])
    if code:
        raise SystemExit(code)


def measure(args: argparse.Namespace, method: str, pairs: list[EditPair], truths: list[Truth]) -> list[Measurement]:
    rows = []
    for seed in range(1 if method == NOTHING else args.seeds):
        pictures, cards = zip(*(load(args.work / method, i, seed, pair) for i, pair in enumerate(pairs)), strict=True)
        for i, (pair, picture, card, seen) in enumerate(zip(pairs, pictures, cards, look(pictures), strict=True)):
            seconds = sum(card["seconds"].get(part, 0.0) for part in ("optimize", "edit")) if card else 0.0
            draws = float(np.mean(card["attempts"])) if card and card["attempts"] else 0.0  # where steps are not counted
            error, far = background_error(pair, picture), distance(pair, picture, truths[i])
            rows.append(Measurement(method, pair.kind, args.first + i, seed, is_success(pair, seen), error, far, seconds, draws))
    return rows


def load(folder: Path, index: int, seed: int, pair: EditPair) -> tuple[Image.Image, dict | None]:
    """An edit and its run card; the source and None where nothing is done."""
    if folder.name == NOTHING:
        return pair.source_image, None
    name = f"{index:03d}_seed{seed}"
    return Image.open(folder / f"{name}.png").convert("RGB"), json.loads((folder / f"{name}.json").read_text())


def is_success(pair: EditPair, seen: Facts) -> bool:
    before, after = facts(pair.before), facts(pair.after)
    return seen.place == after.place and after.pairs <= seen.pairs and not (before.pairs - after.pairs) & seen.pairs


def background_error(pair: EditPair, picture: Image.Image) -> float:
    """Mean absolute difference to the source where nothing should change; see the head of this file."""
    difference = np.abs(np.asarray(picture, np.float32) - np.asarray(pair.source_image, np.float32)).mean(2)
    changed = binary_dilation(pair.mask > 0.1, iterations=DILATION)
    if pair.kind == "add":
        changed = most_changed(difference, changed)
    return float(difference[~changed].mean()) if not changed.all() else 0.0


def most_changed(difference: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The square of the side of `like`'s bounding box in which the difference is largest."""
    ys, xs = like.nonzero()
    side = min(int(max(np.ptp(ys), np.ptp(xs))) + 1, len(difference))
    low = side // 2
    inner = uniform_filter(difference, side, mode="constant")[
        low : len(difference) - side + low + 1, low : len(difference) - side + low + 1
    ]
    top, left = np.unravel_index(inner.argmax(), inner.shape)
    square = np.zeros(difference.shape, bool)
    square[top : top + side, left : left + side] = True
    return square


# --- results -----------------------------------------------------------------------------------------------------------


def interval(values: Sequence[float], statistic: Callable = np.mean) -> tuple[float, float, float]:
    """The statistic and its 95 % bootstrap interval."""
    data = np.asarray(values, float)
    picks = np.random.default_rng(0).integers(0, len(data), (RESAMPLES, len(data)))
    low, high = np.percentile(statistic(data[picks], axis=1), (2.5, 97.5))
    return float(statistic(data)), float(low), float(high)


def summary(rows: list[Measurement]) -> dict[str, tuple[float, float, float]]:
    return {
        "success": interval([100.0 * r.success for r in rows]),
        "background_error": interval([r.background_error for r in rows]),
        "distance": interval(known(rows), np.median),
        "nearer": interval([100.0 * (d < 1) for d in known(rows)]),
        "seconds": interval([r.seconds for r in rows]),
        "draws": interval([r.draws for r in rows]),
    }


def known(rows: list[Measurement]) -> list[float]:
    """Distances to the truth, where there is one."""
    return [r.distance for r in rows if r.distance is not None] or [np.nan]


def line(method: str, rows: list[Measurement]) -> str:
    """One row of the Markdown table: figures with intervals, then success by kind."""
    shown, digits = summary(rows), {"success": 1, "background_error": 1, "distance": 2, "nearer": 0}
    cells = ["{:.{d}f} ({:.{d}f} to {:.{d}f})".format(*shown[name], d=d) for name, d in digits.items()]
    cells += [f"{np.mean([r.seconds for r in rows]):.1f}", f"{np.mean([r.draws for r in rows]):.2f}"]
    kinds = [[r.success for r in rows if r.kind == kind] for kind in KINDS]
    return " | ".join([f"| {method}", *cells, *(f"{100 * np.mean(k):.0f}" if k else "" for k in kinds)]) + " |"


PART = """    python experiments/compare_methods.py --work runs/compare --pairs {pairs} --seeds {seeds}{more}

{pairs} held-out edit pairs of tinyworld, {seeds} seed(s), one configuration per method: that of its
yaml in experiments/{changed}. In brackets 95 % bootstrap intervals over edits.

- **success**: the judge sees the target's place and all its things in their colours, and nothing that was to go. The columns on
  the right are success by kind of edit.
- **background error**: mean absolute difference to the source, in 0..255, where nothing should change (the head of the
  script says where that is).
- **distance to the truth**: |edit - t| / |s - t|, the median over edits that are no additions; 0 is perfect, 1 what doing nothing
  scores (the head of the script). Beside it the share of edits below 1.
- **s per edit**: its share of a queue of {batch} on {threads}.

{table}

`do_nothing` is the source itself. [{stem}.json]({stem}.json) has every edit. The first {shown} pairs:

![source, methods, target]({stem}.jpg)
"""


def write_results(args: argparse.Namespace, rows: list[Measurement], pairs: list[EditPair]) -> None:
    """results.json, results.jpg and the part of results.md."""
    args.output.mkdir(parents=True, exist_ok=True)
    by_method = {m: [r for r in rows if r.method == m] for m in dict.fromkeys(r.method for r in rows)}
    shown = pairs[: args.shown]
    stem = "results" if args.part == "methods" else f"results_{args.part}"
    more = "" if args.part == "methods" else f" --part {args.part} --methods {args.methods} --shown {args.shown}"
    more += f" --model {args.model}" if args.model != "tinyworld" else ""
    more += f" --set {' '.join(args.set)}" if args.set else ""
    text = PART.format(
        pairs=len(pairs), seeds=args.seeds, batch=args.batch, threads=machine(args), table=table(by_method), shown=len(shown),
        stem=stem, more=more, changed=", but with what --set says" if args.set else "",
    )  # fmt: skip
    fill(args.output / "results.md", args.part, text)
    data = {"pairs": len(pairs), "first": args.first, "seeds": args.seeds, "pair_seed": args.pair_seed,
            "summary": {m: summary(r) for m, r in by_method.items()}, "edits": [asdict(r) for r in rows]}  # fmt: skip
    (args.output / f"{stem}.json").write_text(json.dumps(rounded(data)) + "\n")
    grid(args, list(by_method), shown).save(args.output / f"{stem}.jpg", quality=args.quality)


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


def table(by_method: dict[str, list[Measurement]]) -> str:
    head = [
        "method",
        "success, %",
        "background error",
        "distance to the truth",
        "nearer than the source, %",
        "s per edit",
        "draws per step",
        *KINDS,
    ]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(line(m, r) for m, r in by_method.items())]
    return "\n".join(lines)


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
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--model", default="tinyworld", help="that edits; its autoencoder must be tinyworld's")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of every method, as for sdist run")
    parser.add_argument("--quality", type=int, default=80, help="of the picture's JPEG")
    parser.add_argument("--shown", type=int, default=8, help="pairs in the grid of pictures")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
