"""sdist tinyworld: what the embedded model can do, measured afresh."""

import argparse
import json

from ..errors import UserError


def main(args: argparse.Namespace) -> int:
    from ..models.loading import load_backbone
    from ..tinyworld.quality import measure

    if args.n < 1 or args.seed < 0:
        raise UserError(f"--n must be at least 1 and --seed at least 0, got {args.n} and {args.seed}")
    measured = {"n": args.n, "seed": args.seed, **measure(load_backbone(args.model, args.device), args.n, args.seed)}
    if args.json:
        print(json.dumps(measured, indent=1))
    else:
        for name, value in measured.items():
            print(f"{name:20}{value:.4g}")
    return 0
