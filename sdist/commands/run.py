"""sdist run: a folder with index.csv; finished rows are skipped, bad rows are named and the rest goes on. Engines do the work."""

import argparse
from importlib import import_module

from ..errors import UserError
from ..extras import need


def main(args: argparse.Namespace) -> int:
    check_counts(args, "seeds", "limit", "workers")
    engine = import_module(f"sdist.jobs.engines.{_engine(args)}")
    lines, problems = engine.make(args)
    print(*lines, sep="\n")
    return 2 if problems else 0


def check_counts(args: argparse.Namespace, *names: str) -> None:
    for name in names:
        given = getattr(args, name)
        if given is not None and given < 1:
            raise UserError(f"--{name} must be at least 1, got {given}")


def _engine(args: argparse.Namespace) -> str:
    """The module of sdist/jobs/engines that is asked for; UserError for options that do not go together."""
    if args.engine == "ray":
        if args.devices is not None:
            raise UserError("--devices is for this machine alone; with --engine ray it is --workers N")
        need("run --engine ray", "ray", extra="ray")
    elif args.workers is not None:
        raise UserError("--workers belongs to --engine ray; N processes on this machine are --devices N")
    return args.engine if args.devices is None else "devices"
