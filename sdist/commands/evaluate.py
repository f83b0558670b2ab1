"""sdist evaluate: scores of a folder of results against a set of edits."""

import argparse
import logging
from pathlib import Path

from ..errors import UserError
from .extras import need

log = logging.getLogger("sdist")


def main(args: argparse.Namespace) -> int:
    need("evaluate", "pandas", "scipy")
    from tqdm.auto import tqdm

    from ..datasets.base import load_dataset
    from ..evaluation.folder import Evaluation, shown_pairs
    from ..evaluation.reports import told, write_reports
    from ..evaluation.results import find_results
    from ..evaluation.scores import Encoders, as_counted, score
    from ..evaluation.summary import summarize_table
    from ..metrics.encoders import Clip, Dino
    from ..metrics.lpips import load_lpips
    from ..metrics.profile import check_profile
    from ..outputs import writable_folder

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
    cache = None if args.cache is None else writable_folder(Path(args.cache))
    dino = None if args.dino is None else Dino(args.dino, args.device, cache)
    lpips = None if args.lpips is None else load_lpips(args.lpips, args.device)
    encoders = Encoders(Clip(args.clip, args.device, cache), dino, lpips)
    with tqdm(total=len(pairs), desc="scored", unit="pair", disable=args.quiet) as bar:
        table = score(pairs, results, encoders, profile, bar.update)
    summary = summarize_table(as_counted(table, pairs), profile)
    paths = write_reports(folder, Evaluation(table, summary, profile, shown_pairs(pairs, results)), args.results.resolve().name)
    print(summary.reset_index().to_json(orient="records", indent=1) if args.json else told(summary).T.to_string())
    log.info("written: %s", ", ".join(map(str, paths)))
    return 0
