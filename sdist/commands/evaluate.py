"""sdist evaluate: scores of a folder of results against a set of edits."""

import argparse
import logging

from ..errors import UserError
from ..extras import need

log = logging.getLogger("sdist")


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
