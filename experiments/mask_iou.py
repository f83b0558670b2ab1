"""How well masks from attention hit the true mask, by timestep, as in Figure 6a of ViMAEdit (arXiv 2410.10496).

    python experiments/mask_iou.py --pairs 24 --set editor.grounding.iterations=10

One walk of `vimaedit` edits pairs of tinyworld in which a thing changes where it stands; in every step three masks are made of
the attention of one call, and held against where the two scenes differ: cross-attention alone and iterated (of both branches,
thresholds of the method), and LUSD's refined map of the target's words at the same threshold. Prints the mean intersection over
union at the latents' size. The last row holds the mean map of all steps against it.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np
import torch
from PIL import Image

from sdist.config.build import load_settings
from sdist.denoising.base import Added
from sdist.denoising.grounding import Grounding, Mask, Saliency
from sdist.denoising.sample import Plan, sample
from sdist.denoising.two_branch import Course
from sdist.editors.loading import load_method
from sdist.editors.two_branch import TwoBranch
from sdist.edits.request import Request
from sdist.prediction import Outputs
from sdist.regularizers.mask import resize, unit_range
from sdist.tinyworld.edits import EditPair, sample_edit

KINDS = ("attach", "replace", "recolour")
NAMES = ("cross-attention", "iterated", "LUSD's map")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--seed", type=int, default=7, help="of the pairs")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rows", type=int, default=10, help="of the table, each the mean of some steps")
    parser.add_argument("--set", nargs="+", default=[], dest="overrides", metavar="KEY=VALUE")
    args = parser.parse_args()
    pairs = [sample_edit(args.seed, i, KINDS[i % len(KINDS)]) for i in range(args.pairs)]
    times, maps = walk(pairs, [f"editor.steps={args.steps}", *args.overrides])
    truth, threshold = true_masks(pairs, maps.shape[-1]), Grounding().threshold
    print(f"| t | {' | '.join(NAMES)} |\n|---|---|---|---|")
    for part in np.array_split(np.arange(len(maps)), args.rows):
        print(row(f"{times[part[0]]}..{times[part[-1]]}", iou(maps[part] > threshold, truth).mean((0, 2))))
    print(row("mean map", iou(unit_range(maps.mean(0)) > threshold, truth).mean(1)))


def row(name: str, values: torch.Tensor) -> str:
    return " | ".join([f"| {name}", *(f"{float(value):.2f}" for value in values)]) + " |"


def true_masks(pairs: list[EditPair], side: int) -> torch.Tensor:
    """(pairs, side, side): cells of which at least half belongs to what changes."""
    areas = [Image.fromarray(pair.mask.astype(np.float32)).resize((side, side), Image.Resampling.BOX) for pair in pairs]
    return torch.from_numpy(np.stack([np.asarray(area) for area in areas])) >= 0.5


def iou(masks: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Of the last two axes."""
    return (masks & truth).sum((-2, -1)) / (masks | truth).sum((-2, -1)).clamp(min=1)


@torch.no_grad()
def walk(pairs: list[EditPair], overrides: list[str]) -> tuple[list[int], torch.Tensor]:
    """The timesteps, and maps in 0..1: (steps, names, pairs, side, side)."""
    loaded = load_method(load_settings("vimaedit", overrides))
    editor, found = cast(TwoBranch, loaded.editor), list[torch.Tensor]()
    with TemporaryDirectory() as folder:
        paths = [Path(folder, f"{i}.png") for i in range(len(pairs))]
        for path, pair in zip(paths, pairs, strict=True):
            pair.source_image.save(path)
        batch = [loaded.prepare(Request(path, p.source, p.target)) for path, p in zip(paths, pairs, strict=True)]
    begun = editor.begin(loaded.model, batch)
    course = editor.course(loaded.model, batch, begun)

    def plan(k: int) -> Plan:
        own = course.plan(k)

        def added(outputs: Outputs) -> Added | None:
            found.append(torch.cat(maps_of(course, k, outputs), 1).transpose(0, 1))
            return own.added(outputs)

        return own._replace(added=added)

    for _ in sample(loaded.model, begun.start, begun.text, begun.levels, editor.solver, plan, begun.inverted):
        pass
    return [int(level.t[0]) for level in begun.levels], torch.stack(found)


def maps_of(course: Course, k: int, outputs: Outputs) -> list[Mask]:
    """Of one step: those of NAMES, at the latents' size."""
    assert course.saliency is not None
    (source, target), focus = (outputs.recorded[recorder] for recorder in course.recorders), course.saliency.focus
    text = course.tokens if k < course.injected.text else None
    shared = k < course.injected.self and course.levels[1] >= course.injected.level
    like, found = outputs.estimates[course.branches[1].bare].z_t, list[Mask]()
    for iterations in (0, course.saliency.settings.iterations):
        saliency = Saliency(replace(course.saliency.settings, iterations=iterations), focus)
        saliency.look(source, target, text, shared)
        found.append(saliency.scaled((like.shape[-2], like.shape[-1])))
    return [*found, unit_range(resize(target.refined(focus.target), like))]


if __name__ == "__main__":
    main()
