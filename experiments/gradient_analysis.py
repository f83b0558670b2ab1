"""LUSD's analysis of its gradients, on tinyworld, as figures.

    python experiments/gradient_analysis.py --output runs/analysis

gradient_sd.png (after Figure 4): the standard deviation of the raw gradient over timesteps, noises, prompts, pictures and numbers
of places where the object may go. low_and_high.png (after Figure 6): the gradients of least and greatest SD among 64 noises, at
the start of a run and in its middle. masks.png: how mask and edit evolve. The numbers are in gradient_sd.json.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch import Tensor

from sdist.config.build import load_settings
from sdist.config.settings import Settings
from sdist.diffusion import std
from sdist.distillation.callbacks import Observer
from sdist.distillation.distiller import ScoreDistiller
from sdist.distillation.method import Method
from sdist.distillation.trainer import optimize
from sdist.draws import DrawKey
from sdist.editors.loading import LoadedMethod
from sdist.edits.request import Request
from sdist.files.images import mask_image, panel, to_images
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.prediction import Edit, Progress, predict
from sdist.timesteps import Uniform
from sdist.tinyworld.captions import PLAIN
from sdist.tinyworld.edits import EditPair, make_pair, sample_edit
from sdist.tinyworld.scene import Attachment, Scene, Thing, sample_scene, sample_thing

matplotlib.use("Agg")
SEED = 4_000_000  # stream of the scenes
NOISES = 32
TIMESTEPS = range(50, 951, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="tinyworld")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    backbone, settings = load_backbone(args.model, "cpu"), load_settings("lusd", model=args.model)
    groups = spread_of_sd(backbone, settings)
    (args.output / "gradient_sd.json").write_text(json.dumps(groups, indent=1) + "\n")
    draw_spread(groups, args.output / "gradient_sd.png")
    pair = sample_edit(SEED, 3, "attach")
    edit, shots = run(backbone, settings, pair)
    low_and_high(backbone, settings, edit, shots, args.output / "low_and_high.png")
    evolution(backbone, pair, shots, args.output / "masks.png")


# --- the standard deviation --------------------------------------------------------------------------------------------


def spread_of_sd(backbone: Backbone, settings: Settings) -> dict[str, dict[str, list[float]]]:
    """For each thing that varies, the SDs of 32 noises for each of its values; t is 500 where it does not vary."""
    scene = next(s for s in scenes(0) if len(s.things) == 1)
    targets = [sample_thing(np.random.default_rng((SEED, 1, i)), scene.things) for i in range(6)]
    one = adding(scene, targets[0])

    def sds(pair: EditPair, t: int = 500) -> list[float]:
        return std(gradients(backbone, settings, prepared(backbone, settings, pair), t)).tolist()

    others = islice((s for s in scenes(2) if len(s.things) == 1 and s.things[0].noun != targets[0].noun), 6)
    return {
        "timestep": {str(t): sds(one, t) for t in TIMESTEPS},
        "prompt": {f"{thing.colour} {thing.noun}": sds(adding(scene, thing)) for thing in targets},
        "picture": {f"{s.things[0].noun}, {s.place}": sds(adding(s, targets[0])) for s in others},
        "places": {name: [sd for pair in pairs for sd in sds(pair)] for name, pairs in places().items()},
    }


def scenes(stream: int) -> Iterator[Scene]:
    rng = np.random.default_rng((SEED, stream))
    while True:
        yield sample_scene(rng)


def adding(scene: Scene, thing: Thing) -> EditPair:
    return make_pair("add", scene, replace(scene, things=(*scene.things, replace(thing, attachment=None))), PLAIN)


def places() -> dict[str, list[EditPair]]:
    """Eight scenes each: a red hat where one thing can wear it, where two can, and a red mushroom that may stand anywhere."""
    pairs: dict[str, list[EditPair]] = {"one wearer": [], "two wearers": [], "anywhere": []}
    rng = np.random.default_rng((SEED, 3))
    for i in range(8):
        base = sample_scene(rng, count=2)
        cat, snowman = (replace(t, noun=n, attachment=None) for t, n in zip(base.things, ("cat", "snowman"), strict=True))
        hat, thing = Attachment("hat", "red"), sample_thing(rng, (cat,))
        for name, things in {"one wearer": (cat,), "two wearers": (cat, snowman)}.items():
            before = replace(base, things=things)
            pairs[name].append(make_pair("attach", before, before.with_thing(i % len(things), attachment=hat), PLAIN))
        pairs["anywhere"].append(adding(replace(base, things=(cat,)), replace(thing, noun="mushroom", colour="red")))
    return pairs


def prepared(backbone: Backbone, settings: Settings, pair: EditPair) -> Edit:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source.png"
        pair.source_image.save(path)
        prepared = LoadedMethod(settings, backbone).prepare(Request(path, pair.source, pair.target))
        return settings.editor.encode(backbone, [prepared])


def gradients(
    backbone: Backbone, settings: Settings, edit: Edit, t: int, latents: Tensor | None = None, noises: int = NOISES
) -> Tensor:
    """The raw gradients of one edit at one timestep, one row per noise; from the source's latents unless others are given."""
    rows = torch.zeros(noises, dtype=torch.long)
    many, loss = edit.narrow(rows), settings.editor.loss
    keys = [DrawKey(SEED, "analysis", 0, i) for i in range(noises)]
    draw = Method(loss, timesteps=Uniform(t, t)).draw(backbone, keys, many.source)
    z = many.source if latents is None else latents.expand_as(many.source)
    with torch.no_grad():
        return loss.gradient(predict(backbone, z, many, draw, loss.branches, loss.hooks, Progress(rows, rows, 1)))


def draw_spread(groups: dict[str, dict[str, list[float]]], path: Path) -> None:
    figure, axes = plt.subplots(1, len(groups), figsize=(17, 4.2), sharey=True, layout="constrained")
    for axis, (what, boxes) in zip(axes, groups.items(), strict=True):
        axis.boxplot(list(boxes.values()), tick_labels=list(boxes), showfliers=False)
        axis.set(title=f"{what} varies", yscale="log")
        axis.tick_params("x", rotation=60)
    axes[0].set_ylabel("SD of the gradient; each box holds the noises")
    figure.savefig(path, dpi=110)
    plt.close(figure)


# --- one run -----------------------------------------------------------------------------------------------------------


class Snapshots(Observer):
    """Latents and mask of the first picture at some steps."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps, self.taken = steps, dict[int, tuple[Tensor, Tensor]]()

    def on_round(self, distiller: ScoreDistiller) -> None:
        step = int(distiller.step[0])
        if step in self.steps and step not in self.taken:
            average = distiller.states.regularizers["attention_mask"].tensors["average"][0]
            self.taken[step] = distiller.latents.detach().clone(), average.clone()


def run(backbone: Backbone, settings: Settings, pair: EditPair) -> tuple[Edit, Snapshots]:
    """LUSD on one pair, with snapshots."""
    edit, shots = prepared(backbone, settings, pair), Snapshots([1, *(round(settings.editor.steps * k / 6) for k in range(1, 7))])
    distiller = ScoreDistiller(backbone, edit, settings.editor.method(backbone), [(0, "analysis")])
    optimize(distiller, backbone.device, [shots], None)
    return edit, shots


def low_and_high(backbone: Backbone, settings: Settings, edit: Edit, shots: Snapshots, path: Path) -> None:
    """Rows: start and middle of the run. Columns: the four gradients of least SD, then the four of greatest."""
    middle = sorted(shots.taken)[3]
    figure, axes = plt.subplots(2, 8, figsize=(15, 4.6), layout="constrained")
    for row, (name, latents) in enumerate({"start": edit.source, f"step {middle}": shots.taken[middle][0]}.items()):
        candidates = gradients(backbone, settings, edit, 500, latents, noises=64)
        order = std(candidates).argsort()
        for axis, i in zip(axes[row], [*order[:4].tolist(), *order[-4:].tolist()], strict=True):
            axis.imshow(candidates[i].norm(dim=0), cmap="magma")
            sd = float(std(candidates)[i])
            axis.set_title(f"SD {sd:.4f}, {'accepted' if sd >= settings.editor.filter.threshold else 'rejected'}", fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
        axes[row][0].set_ylabel(name)
    figure.suptitle("size of the gradient at t = 500: least SD on the left, greatest on the right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def evolution(backbone: Backbone, pair: EditPair, shots: Snapshots, path: Path) -> None:
    """Above the edit, below the averaged mask, from the first step to the last."""
    size = pair.source_image.size
    edits = [to_images(backbone.decode(latents))[0] for _, (latents, _) in sorted(shots.taken.items())]
    masks = [mask_image(mask, size) for _, (_, mask) in sorted(shots.taken.items())]
    rows = [panel([pair.source_image, *edits]), panel([Image.new("RGB", size, "white"), *masks])]
    Image.fromarray(np.concatenate([np.asarray(row) for row in rows])).reduce(2).save(path)


if __name__ == "__main__":
    main()
