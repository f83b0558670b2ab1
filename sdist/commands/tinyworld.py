"""sdist tinyworld: what the embedded model can do, measured afresh."""

import argparse
import json

from ..errors import UserError
from .arguments import Commands, json_argument


def add_to(commands: Commands) -> None:
    command = commands.add_parser("tinyworld", help="measure the embedded model")
    kinds = command.add_subparsers(dest="what", required=True, metavar="WHAT")
    quality = kinds.add_parser("quality", help="generation, autoencoder and attention masks, measured afresh")
    quality.add_argument("--n", type=int, default=500, help="captions and renders (default: 500)")
    quality.add_argument("--seed", type=int, default=0, help="of captions and scenes (default: 0)")
    quality.add_argument("--model", default="tinyworld", help="tinyworld (default), or a folder with another training of it")
    quality.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    json_argument(quality)


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
