"""Edits held-out tinyworld pairs with one method and puts them on one sheet: source, mask, edit, the rendered target.

    python experiments/tinyworld_edits.py --output runs/edits --count 20 --method lusd

Makes a folder in the format of `sdist run`, runs it (what is there already is kept), and writes OUTPUT/METHOD.png. Further
arguments go to `sdist run`. Pair i is sampled from (seed, i) with the kinds of edit in turn; training used other streams.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from sdist.cli import main as sdist
from sdist.files.images import panel
from sdist.tinyworld.edits import KINDS, EditPair, sample_edit, write_pairs
from sdist.tinyworld.instructions import instructions_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=2026, help="of the pairs")
    parser.add_argument("--kinds", default=",".join(KINDS), help="comma-separated, taken in turn")
    parser.add_argument("--name", help="of this run (default: the method's)")
    parser.add_argument("--method", default="lusd")
    args, more = parser.parse_known_args()
    kinds, name = args.kinds.split(","), args.name or Path(args.method).stem
    pairs = [sample_edit(args.seed, i, kinds[i % len(kinds)]) for i in range(args.count)]
    write_pairs(args.output / "input", pairs, instructions_of(pairs))
    results = args.output / name
    code = sdist(["run", "--input", str(args.output / "input"), "--output", str(results), "--method", args.method, *more])
    sheet(results, pairs).save(args.output / f"{name}.png")
    cards = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    draws = np.concatenate([card["attempts"] for card in cards])
    seconds = sum(card["seconds"].get("optimize", card["seconds"].get("edit", 0)) for card in cards) / len(cards)
    print(f"{name}: {len(cards)} edits, {draws.mean():.2f} draws per step, {seconds:.1f} s per edit; {args.output / name}.png")
    return code


def sheet(results: Path, pairs: list[EditPair]) -> Image.Image:
    """One row per pair, two pairs side by side."""
    rows = []
    for i, pair in enumerate(pairs):
        strip = Image.open(results / f"{i:03d}_seed0_panel.png").convert("RGB")
        target = pair.target_image.resize((strip.height, strip.height), Image.Resampling.NEAREST)
        rows.append(np.asarray(panel([strip, target]).resize((4 * 132, 128))))
    left, right = rows[: (len(rows) + 1) // 2], rows[(len(rows) + 1) // 2 :]
    right += [np.full_like(rows[0], 255)] * (len(left) - len(right))
    return Image.fromarray(np.concatenate([np.concatenate(left), np.concatenate(right)], 1))


if __name__ == "__main__":
    raise SystemExit(main())
