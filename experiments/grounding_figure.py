"""Where an edit belongs, step by step: maps and masks of a two-branch edit of tinyworld, in one figure.

    python experiments/grounding_figure.py --output docs/figures/grounding.png

Rows: the map of the target's words before and after its iterations of self-attention, the mask that both branches' maps give,
and the image that the target branch is taken to stand for. Columns: some steps of the walk. The edit is a pair of tinyworld.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from PIL import Image, ImageDraw

from sdist.config.build import load_settings
from sdist.denoising.base import StepNoise
from sdist.denoising.sample import Plan, sample
from sdist.editors.loading import load_method
from sdist.editors.two_branch import TwoBranch
from sdist.edits.request import Request
from sdist.files.images import to_images
from sdist.prediction import Outputs
from sdist.regularizers.mask import unit_range
from sdist.tinyworld.edits import KINDS, sample_edit

SIDE = 96
STEPS = (0, 5, 10, 20, 30, 40, 49)
ROWS = ("cross-attention", "iterated", "mask", "target")


def tile(values: torch.Tensor) -> Image.Image:
    """A map (h, w) in 0..1 as a grey tile."""
    return (
        Image.fromarray((values.clamp(0, 1) * 255).byte().numpy()).resize((SIDE, SIDE), Image.Resampling.NEAREST).convert("RGB")
    )


@torch.no_grad()
def tiles(image: Path, source: str, target: str) -> dict[int, list[Image.Image]]:
    """By step: one tile per row."""
    loaded = load_method(load_settings("vimaedit"))
    editor = cast(TwoBranch, loaded.editor)
    prepared = loaded.prepare(Request(image, source, target))
    begun = editor.begin(loaded.model, [prepared])
    course, found = editor.course(loaded.model, [prepared], begun), {}

    def plan(k: int) -> Plan:
        own = course.plan(k)

        def added(outputs: Outputs) -> StepNoise | None:
            noise = own.added(outputs)
            if k in STEPS and course.saliency is not None and course.masks is not None:
                attention = outputs.recorded[course.recorders[1]]
                coarse = unit_range(attention.text_map(course.saliency.focus.target))[0, 0]
                iterated = unit_range(course.saliency.whole)[0, 1]
                (seen,) = to_images(loaded.model.decode(outputs.clean[course.branches[1]]))
                found[k] = [tile(coarse), tile(iterated), tile(course.masks.edit[0, 0]), seen.resize((SIDE, SIDE))]
            return noise

        return own._replace(added=added)

    for _ in sample(loaded.model, begun.start, begun.text, begun.levels, editor.solver, plan, begun.inverted):
        pass
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=list(KINDS), default="recolour")
    parser.add_argument("--pair", type=int, default=3, help="number of the pair")
    parser.add_argument("--seed", type=int, default=7, help="of the pairs")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    pair = sample_edit(args.seed, args.pair, args.kind)
    with TemporaryDirectory() as folder:
        pair.source_image.save(image := Path(folder, "image.png"))
        found, left, top = tiles(image, pair.source, pair.target), 100, 20
    sheet = Image.new("RGB", (left + (SIDE + 4) * len(STEPS), top + (SIDE + 4) * len(ROWS)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(ROWS):
        draw.text((4, top + row * (SIDE + 4) + SIDE // 2), name, fill="black")
    for column, (k, shown) in enumerate(sorted(found.items())):
        draw.text((left + column * (SIDE + 4) + 4, 4), f"step {k + 1}", fill="black")
        for row, picture in enumerate(shown):
            sheet.paste(picture, (left + column * (SIDE + 4), top + row * (SIDE + 4)))
    sheet.quantize(128).save(args.output, optimize=True)


if __name__ == "__main__":
    main()
