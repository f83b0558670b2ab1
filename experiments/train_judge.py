"""Trains the judge of tinyworld on rendered scenes, in one resumable command.

python experiments/train_judge.py --work runs/tinyworld              # CPU or CUDA, continues where it stopped
python experiments/train_judge.py --work runs/tinyworld --export sdist/tinyworld/weights/judge.safetensors
"""

import argparse
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from train_tinyworld import Run, as_pixels, make_renders, scene_of, train

from sdist.tinyworld.judge import COLOUR_NAMES, NOUN_NAMES, PLACE_NAMES, Judge, facts


def truth(count: int) -> tuple[Tensor, Tensor]:
    """The facts of the training scenes: (count, nouns, colours) of 0 and 1, and the number of each place."""
    pairs, places = (
        torch.zeros(count, len(NOUN_NAMES), len(COLOUR_NAMES), dtype=torch.uint8),
        torch.zeros(count, dtype=torch.long),
    )
    for i in range(count):
        place, shown = facts(scene_of(i)[1])
        places[i] = PLACE_NAMES.index(place)
        for noun, colour in shown:
            pairs[i, NOUN_NAMES.index(noun), COLOUR_NAMES.index(colour)] = 1
    return pairs, places


def worsen(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur, noise and a change of brightness, each on some pictures: what generated pictures may suffer from."""
    blurred = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    chosen = torch.from_numpy(rng.random((len(x), 1, 1, 1)) < 0.4).to(x.device)
    x = torch.where(chosen, blurred, x)
    strength = torch.from_numpy(rng.uniform(0, 0.12, (len(x), 1, 1, 1)) * (rng.random((len(x), 1, 1, 1)) < 0.5)).to(x)
    noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32)).to(x.device)
    shift = torch.from_numpy(rng.uniform(-0.06, 0.06, (len(x), 3, 1, 1))).to(x)
    return x + strength * noise + shift


def parse(description: str, saved: str, samples: int, **numbers: int | None) -> argparse.Namespace:
    """The arguments of a training on the renders of tinyworld; it saves WORK/`saved` unless told otherwise.

    `numbers` are further options with their defaults.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for renders and checkpoints, as train_tinyworld.py's")
    parser.add_argument("--export", type=Path, help=f"where to save the weights (default: WORK/{saved})")
    parser.add_argument("--scenes", type=int, default=24_000)
    parser.add_argument("--samples", type=int, default=samples)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that render")
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    args.export = args.export or args.work / saved
    return args


def main() -> None:
    args = parse(__doc__, "judge.safetensors", 200_000)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    renders = make_renders(args.work / "renders.npy", args.scenes, args.workers)
    pairs, places = truth(len(renders))
    torch.manual_seed(0)
    judge = Judge().to(device)
    cast(Any, judge).to(memory_format=torch.channels_last)  # torch's annotations do not know the argument alone
    nn.init.constant_(judge.pairs.get_parameter("bias"), -5.0)
    run = Run(args.work / "judge_run.safetensors", nn.ModuleDict({"judge": judge}), 2e-3, args.samples, 0.5, 0.998)

    def loss_of(rng: np.random.Generator, batch: int) -> Tensor:
        chosen = np.sort(rng.integers(0, len(renders), batch))
        x = worsen(as_pixels(renders[chosen], device), rng)
        x = torch.where(torch.from_numpy(rng.random((batch, 1, 1, 1)) < 0.5).to(device), x.flip(3), x)
        with torch.autocast(device.type, torch.bfloat16):
            seen, place = judge(x)
        rows = torch.from_numpy(chosen)
        missed = F.binary_cross_entropy_with_logits(seen.float(), pairs[rows].to(device).float(), reduction="none")
        return missed.sum((1, 2)).mean() + F.cross_entropy(place.float(), places[rows].to(device))

    train(run, 32, loss_of, 200, "judge")
    weights = {name: value.half().contiguous() for name, value in run.use_average()["judge"].state_dict().items()}
    save_file(weights, args.export)
    print(f"saved {args.export}")


if __name__ == "__main__":
    main()
