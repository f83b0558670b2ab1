"""sdist verify: a trace recorded from another implementation, replayed and compared."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ..errors import UserError


def main(args: argparse.Namespace) -> int:
    if not args.tolerance > 0:
        raise UserError(f"--tolerance must be above 0, got {args.tolerance}")
    from ..models.loading import load_backbone
    from ..traces.trace import Trace, new_trace_folder, read_trace, write_trace
    from ..traces.verify import adapt, deviations, replay

    trace = read_trace(args.trace)
    if args.record is not None:
        new_trace_folder(args.record)
    backbone = load_backbone(args.model or str(_pipeline(args.trace)), args.device)
    adapt(backbone, trace.case)
    ours = replay(backbone, trace, args.teacher_forced)
    found = deviations(ours, trace)
    ok = all(d.within(args.tolerance) for d in found.values())
    if args.record is not None:
        if "accepted" in found and found["accepted"].max_abs:
            raise UserError("our verdicts are not the recorded ones: the recorded draws do not make a trace of ours")
        write_trace(args.record, Trace(trace.case, {name: ours.get(name, value) for name, value in trace.arrays.items()}))
    case = args.trace.resolve().name
    if args.json:
        shown = {name: asdict(d) for name, d in found.items()}
        print(json.dumps({"case": case, "method": trace.case.method, "ok": ok, "deviations": shown}, indent=1))
    else:
        print(f"{case}: {trace.case.method}, {trace.steps} steps")
        for name, d in found.items():
            verdict = "" if d.within(args.tolerance) else "  beyond the tolerance"
            print(f"  {name:14}{d.max_abs:10.2e} absolute{d.max_rel:10.2e} relative{verdict}")
        print("ok" if ok else f"not within {args.tolerance:g}")
    return int(not ok)


def _pipeline(trace: Path) -> Path:
    places = (trace / "pipeline", trace.resolve().parent / "pipeline")
    for place in places:
        if place.is_dir():
            return place
    raise UserError(f"no pipeline in {' or '.join(map(str, places))}; name one with --model")
