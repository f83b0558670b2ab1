"""sdist evaluate: scores of a folder of results against a set of edits."""

import argparse
import logging
from pathlib import Path

from ..errors import UserError
from ..extras import need
from .arguments import Commands, quiet_argument, score_arguments

log = logging.getLogger("sdist")


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "evaluate",
        help="score results with the metrics of MagicBrush, LUSD and PIE-Bench",
        description="Scores every result KEY.png or KEY_seedN.png against its pair, and summarizes with 95 % intervals.",
    )
    command.add_argument("--dataset", required=True, metavar="FORMAT:DIR",
                         help="index, magicbrush, pie_bench or tinyworld, and its folder")  # fmt: skip
    command.add_argument("--results", type=Path, required=True, metavar="DIR")
    command.add_argument("--output", type=Path, default=Path("evaluation"), metavar="DIR")
    command.add_argument("--clip", default="openai/clip-vit-base-patch32", metavar="ID|DIR",
                         help="tinyworld is embedded (default: openai/clip-vit-base-patch32)")  # fmt: skip
    score_arguments(command)
    command.add_argument("--lpips", type=Path, metavar="FILE", help="weights of LPIPS as safetensors (default: no LPIPS)")
    command.add_argument("--seed", type=int, default=0, help="of the results KEY_seedN.png (default: 0)")
    command.add_argument("--allow-missing", action="store_true", help="a missing result is undefined instead of an error")
    command.add_argument("--device", default="auto")
    command.add_argument("--json", action="store_true", help="print JSON")
    quiet_argument(command)


def main(args: argparse.Namespace) -> int:
    need("evaluate", "pandas", "pyarrow", "scipy", "tabulate")
    from tqdm.auto import tqdm

    from ..datasets.base import load_dataset
    from ..edits.outputs import writable_folder
    from ..evaluation.evaluate import evaluate
    from ..evaluation.results import find_results
    from ..evaluation.scores import load_encoders
    from ..evaluation.tables import told
    from ..metrics.profile import check_profile

    profile = check_profile(args.profile)
    pairs = load_dataset(args.dataset, profile)
    results = find_results(args.results, pairs, args.seed)
    missing = [key for key, path in results.items() if path is None]
    if missing and not args.allow_missing:
        raise UserError(
            f"{len(missing)} of {len(pairs)} results are missing in {args.results}, the first is {missing[0]}; "
            "with --allow-missing they count as undefined"
        )
    folder = writable_folder(args.output)
    encoders = load_encoders(args.clip, args.dino, args.lpips, args.cache, args.device)
    with tqdm(total=len(pairs), desc="scored", unit="pair", disable=args.quiet) as bar:
        name = args.results.resolve().name
        summary, paths = evaluate(folder, pairs, results, encoders, profile, name, bar.update)
    print(summary.reset_index().to_json(orient="records", indent=1) if args.json else told(summary).T.to_string())
    log.info("written: %s", ", ".join(map(str, paths)))
    return 0
