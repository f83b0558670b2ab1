"""LIME on top of InstructPix2Pix, with regions from several sources, on edits that tinyworld-instruct's training never saw.

    python experiments/lime_regions.py --edits 200 --seed 1
    python experiments/lime_regions.py --edits 24 --seed 7 --set guidance_scale=7.5      # of all rows
    python experiments/lime_regions.py --edits 6 --seed 1 --regions segments --figure docs/figures/instructions.jpg

Every row edits the same pictures from the same noise, at the same guidance and in as many steps. Printed are what
compare_methods.py measures, the intersection over union of the region with the true mask of the change, and the mean difference
to the first row, edit by edit, with its 95 % bootstrap interval. `truth` is given the true mask. What is added may stand
anywhere, so its regions are not compared.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from compare_methods import interval
from edit_measures import background_error, is_success
from PIL import Image, ImageDraw
from train_tinyworld_instruct import held_out_edit

import sdist
from sdist.editors.base import Observers
from sdist.edits.request import Request, Result
from sdist.files.images import mask_image, to_images
from sdist.models.loading import load_backbone
from sdist.tinyworld.edits import KINDS, EditPair
from sdist.tinyworld.judge import Facts, look
from sdist.tinyworld.truth import Truth, autoencoded, distance

PLAIN = "instruct_pix2pix"
COMMON = ("guidance_scale=5", "image_guidance_scale=1.5", "num_inference_steps=30")
AT_A_TIME = 20


class Made(NamedTuple):
    kind: str
    success: bool
    background_error: float
    distance: float | None
    overlap: float | None  # of the region with the true mask


def main() -> None:
    args = parse()
    pairs, texts = zip(*(held_out_edit(args.seed, i) for i in range(args.edits)), strict=True)
    model = load_backbone("tinyworld", "cpu")
    truths = [autoencoded(pair, lambda x: model.decode(model.encode(x))) for pair in pairs]
    lost = [background_error(*row) for row in zip(pairs, to_images(torch.stack([t.source for t in truths])), strict=True)]
    print(f"background error of one trip of the source through the autoencoder: {np.mean(lost):.2f}", flush=True)
    rows, results = dict[str, list[Made]](), dict[str, list[Result]]()
    with TemporaryDirectory() as folder:
        requests = [save(Path(folder), i, pair, text) for i, (pair, text) in enumerate(zip(pairs, texts, strict=True))]
        for name in [PLAIN, *args.regions.split(",")]:
            results[name] = edited(name, args.set, requests)
            seen = look([result.image for result in results[name]])
            rows[name] = [measured(*row) for row in zip(pairs, truths, results[name], seen, strict=True)]
            print(line(name, rows[name], rows[PLAIN]), flush=True)
    if args.figure:
        figure(results).save(args.figure, quality=75)


def save(folder: Path, index: int, pair: EditPair, text: str) -> tuple[Request, Path]:
    """The request without a mask, and the file of the true one."""
    image, mask = folder / f"{index:03d}.png", folder / f"{index:03d}_mask.png"
    pair.source_image.save(image)
    Image.fromarray((255 * (pair.mask > 0.5)).astype(np.uint8)).save(mask)
    return Request(image, "", "", index, (), None, text), mask


def edited(name: str, settings: list[str], requests: list[tuple[Request, Path]]) -> list[Result]:
    region = [] if name in (PLAIN, "truth") else [f"editor.region={name}"]
    chosen = [*(f"editor.{setting}" for setting in (*COMMON, *settings)), *region]
    method = sdist.load(PLAIN if name == PLAIN else "lime", "tinyworld-instruct", device="cpu", settings=chosen)
    results = []
    for a in range(0, len(requests), AT_A_TIME):
        asked = [replace(r, mask=m) if name == "truth" else r for r, m in requests[a : a + AT_A_TIME]]
        results += method.edit([method.prepare(request) for request in asked], Observers(parallel=AT_A_TIME))
    return results


def measured(pair: EditPair, truth: Truth, result: Result, seen: Facts) -> Made:
    far = distance(pair, result.image, truth)
    overlap = None if result.mask is None or pair.kind == "add" else iou(result, pair.mask > 0.5)
    return Made(pair.kind, is_success(pair, seen), background_error(pair, result.image), far, overlap)


def iou(result: Result, truth: np.ndarray) -> float:
    assert result.mask is not None
    region = np.asarray(mask_image(result.mask, result.image.size).convert("L")) > 127
    return float((region & truth).sum() / (region | truth).sum())


def line(name: str, rows: list[Made], plain: list[Made]) -> str:
    """One row of a Markdown table."""
    success, error = ([getattr(r, field) for r in rows] for field in ("success", "background_error"))
    more = [100.0 * (a.success - b.success) for a, b in zip(rows, plain, strict=True)]
    less = [a.background_error - b.background_error for a, b in zip(rows, plain, strict=True)]
    overlaps = [r.overlap for r in rows if r.overlap is not None]
    cells = [
        name, f"{100 * np.mean(success):.1f}", span(more, 1), f"{np.mean(error):.2f}", span(less, 2),
        f"{np.median([r.distance for r in rows if r.distance is not None]):.2f}",
        f"{np.mean(overlaps):.2f}, {np.median(overlaps):.2f}" if overlaps else "",
        *(f"{100 * np.mean([r.success for r in rows if r.kind == kind]):.0f}" for kind in KINDS),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def figure(results: dict[str, list[Result]]) -> Image.Image:
    """A row per edit: its instruction, the source, the last method's region, and the edit of every method."""
    *_, last = results.values()
    sheet = Image.new("RGB", (len(results) * 132 + 264, 20 + len(last) * 150), "white")
    draw = ImageDraw.Draw(sheet)
    for x, name in enumerate(["source", "region", *results]):
        draw.text((x * 132 + 4, 4), name, fill="black")
    for y, row in enumerate(zip(*results.values(), strict=True)):
        request, image, mask = row[0].prepared.request, row[0].prepared.image, row[-1].mask
        region = Image.new("L", image.size) if mask is None else mask_image(mask, image.size)
        draw.text((4, 22 + y * 150), request.instruction, fill="black")
        for x, picture in enumerate([image, region, *(result.image for result in row)]):
            sheet.paste(picture, (x * 132, 38 + y * 150))
    return sheet


def span(values: list[float], digits: int) -> str:
    return "{:+.{d}f} ({:+.{d}f} to {:+.{d}f})".format(*interval(values), d=digits)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of the edits")
    parser.add_argument("--regions", default="segments,attention,truth", help="sources of LIME's region, one row each")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of both editors")
    parser.add_argument("--figure", type=Path, help="of all edits: instruction, source, region of the last row, every row's edit")
    return parser.parse_args()


if __name__ == "__main__":
    main()
