"""What the same constants do at another size: edits of tinyworld pairs, measured against sources and truths of that size.

    python experiments/resolution.py --methods dds,localflow --sizes 128 192
    python experiments/resolution.py --methods lusd,lusd:scale.step=0.07 --sizes 128 --kinds background

The pairs, of --pair-seed, are of each of the --kinds in turn. Images, truths and masks are enlarged alike. The first row of a
size is the autoencoder without an edit: what no method can be better than there. Measures: experiments/edit_measures.py and
sdist/tinyworld/truth.py; success is judged at 128 pixels. Prints a Markdown table.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from edit_measures import DILATION, background_error, is_success
from PIL import Image
from scipy.ndimage import binary_dilation

import sdist
from sdist.files.images import to_images, to_pixels
from sdist.files.in_memory import kept_file
from sdist.models.loading import load_backbone
from sdist.tinyworld.edits import KINDS, EditPair, sample_edit
from sdist.tinyworld.judge import look
from sdist.tinyworld.scene import SIDE
from sdist.tinyworld.truth import Truth, distance


def main() -> int:
    args = parse()
    pairs = [sample_edit(args.pair_seed, i, args.kinds[i % len(args.kinds)]) for i in range(args.pairs)]
    print("| method | size | success, % | background error | distance to the truth |\n|---|---|---|---|---|")
    for size in args.sizes:
        large = [enlarged(pair, size) for pair in pairs]
        sources, targets = (
            autoencoded(images) for images in zip(*((p.source_image, p.target_image) for p in large), strict=True)
        )
        truths = [Truth(s, t) for s, t in zip(*map(to_pixels, (sources, targets)), strict=True)]
        print(row("autoencoder", size, large, sources, truths), flush=True)
        for method in args.methods.split(","):
            print(row(method, size, large, edits(method, large, size), truths), flush=True)
    return 0


def enlarged(pair: EditPair, side: int) -> EditPair:
    """The same pair of another size, its mask wider by as many pixels as make its dilation as wide as the scene has it."""
    wider = round(DILATION * (side / SIDE - 1))
    source, target, mask = (
        image.resize((side, side), Image.Resampling.LANCZOS)
        for image in (pair.source_image, pair.target_image, Image.fromarray((pair.mask * 255).astype(np.uint8)))
    )
    area = np.asarray(mask, np.float64) / 255
    area = np.maximum(area, binary_dilation(area > 0.1, iterations=wider)) if wider else area
    return replace(pair, source_image=source, target_image=target, mask=area)


@torch.no_grad()
def autoencoded(images: Sequence[Image.Image]) -> list[Image.Image]:
    """The images as tinyworld's autoencoder gives them back."""
    model = load_backbone("tinyworld", "cpu")
    return to_images(model.decode(model.encode(to_pixels(images))))


def edits(method: str, pairs: Sequence[EditPair], side: int) -> list[Image.Image]:
    """The edits of a method at that size, seed 0."""
    name, _, changed = method.partition(":")
    loaded = sdist.load(name, "tinyworld", settings=[f"size={side}x{side}", *(changed.split("+") if changed else [])])
    requests = [sdist.Request(kept_file(pair.source_image), pair.source, pair.target) for pair in pairs]
    return [result.image for result in loaded.edit([loaded.prepare(request) for request in requests])]


def row(method: str, size: int, pairs: Sequence[EditPair], images: Sequence[Image.Image], truths: Sequence[Truth]) -> str:
    """Of the table."""
    seen = look([image.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for image in images])
    success = np.mean([100 * is_success(pair, facts) for pair, facts in zip(pairs, seen, strict=True)])
    error = np.mean([background_error(pair, image) for pair, image in zip(pairs, images, strict=True)])
    far = [distance(pair, image, truth) for pair, image, truth in zip(pairs, images, truths, strict=True)]
    return f"| {method} | {size} | {success:.0f} | {error:.1f} | {np.median([d for d in far if d is not None]):.2f} |"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="dds,localflow")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 192], help="sides in pixels")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of edits")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--pair-seed", type=int, default=778, help="of pairs that no table reports")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
