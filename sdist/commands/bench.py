"""sdist bench: LUSD here against a plain loop in the way of the released code, on the same machine and the same edits."""

import argparse
import json
import sys

from ..errors import UserError


def main(args: argparse.Namespace) -> int:
    if min(args.edits, args.repetitions) < 1:
        raise UserError(f"--edits and --repetitions must be at least 1, got {args.edits} and {args.repetitions}")
    from ..benchmark.measure import as_lines, measure
    from ..jobs.session import settings_of

    settings = settings_of(args, "lusd")
    figures = measure(settings, args.edits, args.repetitions, args.batch, lambda text: print(text, file=sys.stderr, flush=True))
    print(json.dumps(figures, indent=1) if args.json else "\n".join(as_lines(figures)))
    if not figures["agree"]:
        raise UserError("the accept sequences differ, so the ratios mean nothing; is the precision too coarse for the filter?")
    return 0
