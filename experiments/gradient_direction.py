"""How well LUSD's raw gradient points to the edit, by timestep: on pairs of tinyworld, whose rendered targets are known.

    python experiments/gradient_direction.py --model tinyworld-flow

At the source's latents and halfway to the target's: the cosine of minus the gradient, eps(target) - eps(source), to the way from
source to target, its SD, and the part of its energy within patches of 2 x 2 latents; means over pairs, for the cosine over two
noises too.
"""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from sdist.diffusion import Latents, add_noise, std
from sdist.files.images import to_pixels
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.prediction import Text
from sdist.tinyworld.edits import KINDS, EditPair, sample_edit

NOISES = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tinyworld-flow", help="whose timesteps are 0..1000")
    parser.add_argument("--pair-seed", type=int, default=555001)
    parser.add_argument("--pairs", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5, 8, 9], help="their numbers")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    model = load_backbone(args.model, "cpu")
    pairs = [sample_edit(args.pair_seed, i, list(KINDS)[i % len(KINDS)]) for i in args.pairs]
    source, target = (model.encode(to_pixels(images)) for images in pictures(pairs))
    text, way = model.embed([pair.target for pair in pairs] + [pair.source for pair in pairs]), target - source
    for name, z in (("source", source), ("halfway", source + 0.5 * way)):
        for t in range(50, 951, 100):
            found = [gradient(model, z, text, t, 100 * t + k) for k in range(NOISES)]
            towards = torch.stack([torch.cosine_similarity(-g.flatten(1), way.flatten(1)) for g in found]).mean()
            sds, within = std(found[0]), within_patches(torch.stack(found).mean(0))
            print(f"{name} t={t}: cosine {towards:.2f}, SD {sds.mean():.3f}, within patches {within:.2f}", flush=True)
    return 0


def pictures(pairs: Sequence[EditPair]) -> tuple[list, list]:
    """Sources and rendered targets."""
    return [pair.source_image for pair in pairs], [pair.target_image for pair in pairs]


def gradient(model: Backbone, z: Latents, text: Text, t: int, seed: int) -> Latents:
    """eps(z_t, target) - eps(z_t, source); `text` has the targets, then the sources."""
    times = torch.full((len(z),), float(t))
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed))
    noisy = add_noise(z, noise, *model.scales(times, (z.shape[-2], z.shape[-1]))).float()
    targets, sources = model.estimate(torch.cat([noisy, noisy]), torch.cat([times, times]), text).eps.chunk(2)
    return targets - sources


def within_patches(g: Latents) -> Tensor:
    """The part of the energy that the means of squares of 2 x 2 latents do not have."""
    squares = g.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))
    rest = squares - squares.mean((-3, -1), keepdim=True)
    return (rest.square().flatten(1).mean(1) / squares.square().flatten(1).mean(1)).mean()


if __name__ == "__main__":
    raise SystemExit(main())
