"""sdist edit: one image, one or several seeds."""

import argparse

from ..errors import UserError


def main(args: argparse.Namespace) -> int:
    if args.seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {args.seeds}")
    from ..editing import Job
    from .session import Session  # these import torch and diffusers

    session = Session(args)
    first = session.settings.seed
    jobs = [Job(args.image, args.source, args.target, s, args.words, args.mask) for s in range(first, first + args.seeds)]
    files = session.output_files([f"{args.image.stem}_seed{job.seed}" for job in jobs])
    session.edit([session.prepare(job) for job in jobs], files, args.image.stem)
    for own in files:
        print(own["image"], own["panel"], sep="\n")
    return 0
