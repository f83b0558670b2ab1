"""sdist edit: one image, one or several seeds."""

import argparse
import logging

from ..errors import UserError

log = logging.getLogger("sdist")


def main(args: argparse.Namespace) -> int:
    if args.seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {args.seeds}")
    if args.record is not None and args.seeds > 1:
        raise UserError("--record keeps the trace of one picture; --seeds must be 1")
    from ..edits.request import Request
    from ..jobs.session import Session  # these import torch and diffusers
    from ..traces.record import record
    from ..traces.trace import new_trace_folder, write_trace

    session = Session(args)
    if args.record is not None:
        new_trace_folder(args.record)
    first = session.settings.seed
    requests = [
        Request(args.image, args.source, args.target, s, args.words, args.mask, args.instruction)
        for s in range(first, first + args.seeds)
    ]
    files = session.output_files([f"{args.image.stem}_seed{request.seed}" for request in requests])
    prepared = [session.prepare(request) for request in requests]
    if args.record is not None:
        log.info("recording a trace in %s", args.record)
        write_trace(args.record, record(session.backbone, session.settings, prepared[0]))
    session.edit(prepared, files, args.image.stem)
    for own in files:
        print(own["image"], own["panel"], sep="\n")
    return 0
