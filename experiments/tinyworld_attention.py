"""What attention of the embedded model points at: each layer, group of heads and timestep against the true masks.

    python experiments/tinyworld_attention.py --output runs/attention --scenes 40

Held-out renders are noised at t = 50, 150, ..., 950; a noun's map is scored by the area under the ROC curve (AUC) against the
mask of its object. Prints and writes attention.json, attention.png (cross-attention by layer and timestep, by layer and head;
what refinement by self-attention adds) and refinement.png (maps before and after refinement, as in Figure 5 of LUSD).
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image

from sdist.files.images import mask_image, panel
from sdist.hooks.attention import Attention, AttentionRecorder, Queries
from sdist.hooks.layers import Layer
from sdist.models.base import Backbone
from sdist.models.catalogue import MODELS
from sdist.models.loading import load_backbone
from sdist.prediction import SOURCE_SOURCE
from sdist.regularizers.mask import resize, unit_range
from sdist.tinyworld.quality import RENDER_SEED, TIMESTEPS, auc, observe
from sdist.tinyworld.scene import Scene, render, sample_scene

matplotlib.use("Agg")
SCALE = MODELS["tinyworld"].scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="tinyworld")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    backbone = load_backbone(args.model, "cpu")
    scenes = [sample_scene(np.random.default_rng((RENDER_SEED + args.seed, i))) for i in range(args.scenes)]
    scores = score(backbone, scenes, args.seed)
    table = {name: {"median": float(np.median(v)), "p10": float(np.percentile(v, 10))} for name, v in scores.items()}
    by_time = {name: np.median(np.reshape(v, (-1, len(TIMESTEPS))), 0).tolist() for name, v in scores.items()}
    (args.output / "attention.json").write_text(json.dumps({"auc": table, "by_timestep": by_time}, indent=1) + "\n")
    for name, row in table.items():
        print(f"{name:72}{row['median']:.3f} {row['p10']:.3f}")
    draw(table, by_time, args.output / "attention.png")
    refinement(backbone, scenes, args.output / "refinement.png")


def score(backbone: Backbone, scenes: list[Scene], seed: int) -> dict[str, list[float]]:
    """AUC of every kind of map, for each noun and timestep in this order."""
    maps: dict[str, list[float]] = {}
    for index, scene in enumerate(scenes):
        levels = sorted({layer.level for layer in backbone.layout.layers("cross")})
        recorded = {level: observe(backbone, scene, _recorder(level), (seed, index)) for level in levels}
        _, focus, masks = recorded[SCALE.cross_level]
        for noun, mask in masks.items():
            for level, (attention, _, _) in recorded.items():
                for name, part in parts_of(attention, level):
                    maps.setdefault(name, []).extend(_aucs(part, focus[noun], mask, refined=name.startswith("refined")))
    return maps


def _recorder(level: int) -> AttentionRecorder:
    return AttentionRecorder(SOURCE_SOURCE, level, SCALE.self_level)


def parts_of(attention: Attention, level: int) -> list[tuple[str, Attention]]:
    """The attention of a level whole, refined, by layer and by head."""
    parts = [(f"cross, level {level}", attention), (f"refined, level {level}", attention)]
    for layer, (q, k) in attention.cross.items():
        parts.append((f"cross, {layer.name}", replace(attention, cross={layer: (q, k)})))
        parts += [
            (f"cross, {layer.name}, head {h}", replace(attention, cross=one_head(layer, q, k, h))) for h in range(layer.heads)
        ]
    return parts


def one_head(layer: Layer, q: torch.Tensor, k: torch.Tensor, head: int) -> Queries:
    width = q.shape[-1] // layer.heads
    channels = slice(head * width, (head + 1) * width)
    return {replace(layer, heads=1): (q[..., channels], k[..., channels])}


def _aucs(attention: Attention, focus: torch.Tensor, mask: np.ndarray, refined: bool) -> list[float]:
    focus = focus.expand(len(TIMESTEPS), -1)
    maps = attention.refined(focus) if refined else attention.cross_map(focus)
    return [auc(one[None], mask) for one in maps]


def draw(table: dict, by_time: dict, path: Path) -> None:
    """Layers by timestep, layers by head, and cross against refined."""
    layers = [n for n in table if n.startswith("cross, ") and "head" not in n and "level" not in n]
    heads = 1 + max(int(n.rsplit(" ", 1)[1]) for n in table if "head" in n)
    figure, axes = plt.subplots(1, 3, figsize=(17, 4.5), layout="constrained", width_ratios=(3, 2, 2))
    short = [n.removeprefix("cross, ").replace(".transformer_blocks.0.attn2", "").replace("attentions", "attn") for n in layers]
    grids = ([by_time[n] for n in layers], [[table[f"{n}, head {h}"]["median"] for h in range(heads)] for n in layers])
    titles = ("AUC by layer and timestep", "AUC by layer and head")
    for axis, values, title, columns in zip(axes, grids, titles, (list(TIMESTEPS), list(range(heads))), strict=False):
        shown = axis.imshow(values, vmin=0.5, vmax=1, aspect="auto", cmap="viridis")
        axis.set_yticks(range(len(layers)), short)
        axis.set_xticks(range(len(columns)), columns)
        axis.set_title(title)
        for y, row in enumerate(values):
            for x, value in enumerate(row):
                axis.text(x, y, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.8 else "black", fontsize=8)
    figure.colorbar(shown, ax=axes[:2])
    for name in (n for n in by_time if "level" in n):
        axes[2].plot(list(TIMESTEPS), by_time[name], marker="o", label=name)
    axes[2].set(title="cross-attention and refined", xlabel="timestep", ylabel="median AUC", ylim=(0.5, 1.01))
    axes[2].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def refinement(backbone: Backbone, scenes: list[Scene], path: Path) -> None:
    """For a few nouns at t = 550: the picture, the cross-attention map, the refined map, the true mask."""
    rows = []
    for index, scene in enumerate(s for s in scenes if len(s.things) == 2):
        attention, focus, masks = observe(backbone, scene, _recorder(SCALE.cross_level), (0, index))
        one = attention.narrow(torch.tensor([list(TIMESTEPS).index(550)]))
        noun = next(iter(masks))
        like = torch.zeros(1, 4, *attention.size)
        maps = [unit_range(resize(m, like))[0] for m in (one.cross_map(focus[noun]), one.refined(focus[noun]))]
        picture = render(scene)
        truth = Image.fromarray((masks[noun] * 255).astype(np.uint8)).convert("RGB")
        rows.append(np.asarray(panel([picture, *(mask_image(m, picture.size) for m in maps), truth])))
        if len(rows) == 4:
            break
    Image.fromarray(np.concatenate(rows)).resize((1036 // 2, 256 * len(rows) // 2)).save(path)


if __name__ == "__main__":
    main()
