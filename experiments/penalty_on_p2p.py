"""LIME's attention penalty on Prompt-to-Prompt: does it help where the region is known?

    python experiments/penalty_on_p2p.py --pairs 24

The region is the true mask of the change, the best there is. In the steps whose cross-attention is not injected, cells of the
region look in the target's branch at content words of the target prompt alone. Measured as compare_methods.py does.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from edit_measures import background_error, is_success
from lime_regions import span
from PIL import Image

from sdist.config.build import load_settings
from sdist.editors.base import Observers
from sdist.editors.inverted_walk import Masking, Planning, WalkSetup
from sdist.editors.lime import tokens_of
from sdist.editors.loading import LoadedMethod
from sdist.editors.mask_images import mask_pixels
from sdist.editors.prompt_to_prompt import PromptToPrompt
from sdist.edits.request import Request
from sdist.hooks.penalty import Penalty
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.prediction import TARGET
from sdist.regions.base import from_mask
from sdist.tinyworld.edits import KINDS, EditPair, sample_edit
from sdist.tinyworld.judge import look


@dataclass(frozen=True)
class Penalized(PromptToPrompt):
    """The region is the mask image."""

    @property
    def reads(self) -> frozenset[str]:
        return frozenset({"mask"})

    def planned(self, model: Backbone, batch: Sequence[Any], setup: WalkSetup) -> tuple[Planning, Masking]:
        (plan, masks), injected = super().planned(model, batch, setup), int(self.cross_replace * (self.steps + 1))
        size = model.latent_size(batch[0].image.size)
        allowed = torch.zeros(len(batch), model.text.length, dtype=torch.bool)
        for row, p in enumerate(batch):
            allowed[row, list(tokens_of(model.text, p.request.target, "paper").effective)] = True
        region = torch.stack([from_mask(mask_pixels([p.mask]), size).mask for p in batch])
        penalty = Penalty((TARGET,), (0, 1), region, allowed, size)
        return lambda k: plan(k) if k < injected else plan(k)._replace(hooks=[*plan(k).hooks, penalty]), masks


def main() -> None:
    args = parse()
    pairs = [sample_edit(args.pair_seed, i, list(KINDS)[i % len(KINDS)]) for i in range(args.first, args.first + args.pairs)]
    settings, model = load_settings("p2p", [f"editor.{setting}" for setting in args.set]), load_backbone("tinyworld", "cpu")
    with TemporaryDirectory() as folder:
        requests = [request_of(Path(folder), i, pair) for i, pair in enumerate(pairs)]
        plain = edited(LoadedMethod(settings, model), [replace(request, mask=None) for request in requests])
        penalized = edited(LoadedMethod(replace(settings, editor=Penalized(**vars(settings.editor))), model), requests)
    print(line("p2p", pairs, plain, plain), line("with the penalty", pairs, penalized, plain), sep="\n")


def request_of(folder: Path, index: int, pair: EditPair) -> Request:
    """With the true mask."""
    image, mask = folder / f"{index:03d}.png", folder / f"{index:03d}_mask.png"
    pair.source_image.save(image)
    Image.fromarray((255 * (pair.mask > 0.5)).astype(np.uint8)).save(mask)
    return Request(image, pair.source, pair.target, mask=mask)


def edited(method: LoadedMethod, requests: list[Request]) -> list[Image.Image]:
    prepared = [method.prepare(request) for request in requests]
    return [r.image for a in range(0, len(prepared), 12) for r in method.edit(prepared[a : a + 12], Observers(parallel=12))]


def line(name: str, pairs: list[EditPair], edits: list[Image.Image], plain: list[Image.Image]) -> str:
    """Success and background error, and the mean difference to plain edits with its interval."""
    success, before = ([is_success(*row) for row in zip(pairs, look(images), strict=True)] for images in (edits, plain))
    error, of_plain = ([background_error(*row) for row in zip(pairs, images, strict=True)] for images in (edits, plain))
    more = span([100.0 * (a - b) for a, b in zip(success, before, strict=True)], 1)
    less = span([a - b for a, b in zip(error, of_plain, strict=True)], 2)
    return f"| {name} | {100 * np.mean(success):.1f} | {more} | {np.mean(error):.2f} | {less} |"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--first", type=int, default=0, help="number of the first pair")
    parser.add_argument("--pair-seed", type=int, default=2026)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of both editors")
    return parser.parse_args()


if __name__ == "__main__":
    main()
