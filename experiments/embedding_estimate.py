"""Whether ViMAEdit's estimate of the edited image's CLIP embedding is nearer to the truth than the source image's embedding is.

    python experiments/embedding_estimate.py --pairs 240

Edit pairs of tinyworld know the truth: the embedding of the rendered target. Prints, by kind of edit, the mean cosine and the
mean L2 distance (relative to the truth's length) to it, of the source's embedding, of both estimates
(sdist/image_guidance/guide.py), and the share of pairs in which the paper's estimate is nearer than the source by both measures.
"""

import argparse

import torch
from torch.nn.functional import cosine_similarity

from sdist.image_guidance.catalogue import ADAPTERS
from sdist.image_guidance.guide import Guide, estimate, load_guide
from sdist.tinyworld.edits import KINDS, EditPair, sample_edit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=240)
    parser.add_argument("--seed", type=int, default=7, help="of the pairs")
    args = parser.parse_args()
    pairs = [sample_edit(args.seed, i, list(KINDS)[i % len(KINDS)]) for i in range(args.pairs)]
    guide = load_guide(ADAPTERS["tinyworld"], torch.device("cpu"))
    print("| edit | cosine: source | estimate | released | L2: source | estimate | released | estimate nearer, % |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in [*KINDS, "all"]:
        print(row(kind, guide, [pair for pair in pairs if kind in (pair.kind, "all")]))


def row(kind: str, guide: Guide, pairs: list[EditPair]) -> str:
    image, truth = (guide.clip.images(x, "clean") for x in zip(*((p.source_image, p.target_image) for p in pairs), strict=True))
    source, target = (guide.clip.texts(x) for x in zip(*((p.source, p.target) for p in pairs), strict=True))
    guesses = [image, estimate(image, source, target, "paper"), estimate(image, source, target, "released")]
    cosines = [cosine_similarity(guess, truth) for guess in guesses]
    lengths = [(guess - truth).norm(dim=1) / truth.norm(dim=1) for guess in guesses]
    nearer = (cosines[1] > cosines[0]) & (lengths[1] < lengths[0])
    cells = [f"{float(x.mean()):.2f}" for x in (*cosines, *lengths)]
    return " | ".join([f"| {kind}", *cells, f"{100 * float(nearer.float().mean()):.0f} |"])


if __name__ == "__main__":
    main()
