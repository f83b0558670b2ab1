"""sdist verify: a trace recorded from another implementation, replayed and compared."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ..errors import UserError
from .arguments import Commands, json_argument


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "verify",
        help="hold a recorded trace of another implementation against this one",
        description="Replays a recorded trace with our components and prints how far each quantity is from the recorded one.",
    )
    command.add_argument("trace", type=Path, metavar="TRACE_DIR", help="folder with case.json and trace.safetensors")
    command.add_argument("--model", metavar="DIR", help="pipeline (default: TRACE_DIR/pipeline, else TRACE_DIR/../pipeline)")
    command.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:N or mps (default: cpu)")
    command.add_argument("--teacher-forced", action="store_true",
                         help="start every step from the recorded latents, not from ours")  # fmt: skip
    command.add_argument("--tolerance", type=float, default=1e-4, help="of a quantity's largest magnitude (default: 1e-4)")
    command.add_argument("--record", type=Path, metavar="DIR", help="write our run as a trace of the same format")
    json_argument(command)


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
    adapt(backbone, trace.run)
    ours = replay(backbone, trace, args.teacher_forced)
    errors = deviations(ours, trace)
    ok = all(d.within(args.tolerance) for d in errors.values())
    if args.record is not None:
        if "accepted" in errors and errors["accepted"].max_abs:
            raise UserError("our verdicts are not the recorded ones: the recorded draws do not make a trace of ours")
        write_trace(args.record, Trace(trace.run, {name: ours.get(name, value) for name, value in trace.arrays.items()}))
    case = args.trace.resolve().name
    if args.json:
        shown = {name: asdict(d) for name, d in errors.items()}
        print(json.dumps({"case": case, "method": trace.run.method, "ok": ok, "deviations": shown}, indent=1))
    else:
        print(f"{case}: {trace.run.method}, {trace.steps} steps")
        for name, d in errors.items():
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
