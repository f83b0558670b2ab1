"""Method or model? What a method reaches on tinyworld if it is told what it has to find out: where the edit is, or the best seed.

    python experiments/oracles.py --method localflow --pairs 48     # prints a Markdown table

own mask: the method as it is. true mask: the mask of the change, dilated by 4 pixels, in place of its own. best seed: of --seeds
draws of noise the edit that is nearest to the truth. Medians of the distance to the truth, by kind of edit (additions have none):
where even an oracle stays far from 0, the model is the limit.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import sdist
from sdist.editors.base import Observers
from sdist.editors.loading import LoadedMethod
from sdist.tinyworld.edits import KINDS, EditPair, allowed_area, sample_edit
from sdist.tinyworld.truth import Truth, autoencoded, distance

MEASURED = [kind for kind in KINDS if kind != "add"]


def main() -> None:
    args = parse()
    pairs = [sample_edit(args.pair_seed, i, MEASURED[i % len(MEASURED)]) for i in range(args.pairs)]
    method = sdist.load(args.method, settings=["regularizers.attention_mask.user_mask=replace"])
    truths = [autoencoded(pair, lambda x: method.model.decode(method.model.encode(x))) for pair in pairs]
    with TemporaryDirectory() as folder:
        own = np.array([distances(method, pairs, truths, Path(folder), seed) for seed in range(args.seeds)])
        true = distances(method, pairs, truths, Path(folder), 0, with_true_mask=True)
    columns = {"own mask": own[0], "true mask": true, f"best of {args.seeds} seeds": own.min(0)}
    print("| kind | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for kind in [*MEASURED, "all"]:
        chosen = [kind in ("all", pair.kind) for pair in pairs]
        print(f"| {kind} | " + " | ".join(f"{np.median(values[chosen]):.2f}" for values in columns.values()) + " |")


def distances(
    method: LoadedMethod, pairs: list[EditPair], truths: list[Truth], folder: Path, seed: int, with_true_mask: bool = False
) -> np.ndarray:
    """Of the edits with that seed; `with_true_mask`: inside of the true mask."""
    requests = []
    for i, pair in enumerate(pairs):
        image, mask = folder / f"{i}.png", folder / f"{i}_mask.png"
        pair.source_image.save(image)
        allowed_area(pair).save(mask)
        requests.append(sdist.Request(image, pair.source, pair.target, seed, mask=mask if with_true_mask else None))
    results = method.edit([method.prepare(request) for request in requests], Observers(parallel=12))
    return np.array([distance(pair, r.image, truth) for pair, r, truth in zip(pairs, results, truths, strict=True)])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="localflow", help="with an attention mask")
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--pair-seed", type=int, default=777, help="apart from that of compare_methods.py, 2026")
    parser.add_argument("--seeds", type=int, default=4)
    return parser.parse_args()


if __name__ == "__main__":
    main()
