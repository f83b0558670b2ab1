"""sdist verify: a trace recorded from another implementation, replayed and compared."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from .arguments import Commands, json_argument

if TYPE_CHECKING:
    from ..traces.deviation import Deviation
    from ..traces.kinds import Case


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "verify",
        help="compare a recorded trace of another implementation with this one",
        description="Replays a recorded trace with our components and prints how far each quantity is from the recorded one.",
    )
    command.add_argument("trace", type=Path, metavar="TRACE_DIR", help="folder with case.json and trace.safetensors")
    command.add_argument("--model", metavar="DIR", help="pipeline (default: the one that the trace names)")
    command.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:N or mps (default: cpu)")
    command.add_argument("--teacher-forced", action="store_true",
                         help="start every step from the recorded latents, not from ours")  # fmt: skip
    command.add_argument("--tolerance", type=float, default=1e-4, help="of a quantity's largest magnitude (default: 1e-4)")
    command.add_argument(
        "--record", type=Path, metavar="DIR", help="write our run as a trace of the same format (default: nowhere)"
    )
    json_argument(command)


def main(args: argparse.Namespace) -> int:
    if not args.tolerance > 0:
        raise UserError(f"--tolerance must be above 0, got {args.tolerance}")
    from ..traces.files import read_settings
    from ..traces.kinds import Case, compare

    case = Case(args.trace, read_settings(args.trace), args.model, args.device, args.teacher_forced)
    if "trace" not in case.settings:
        method, steps, errors = _distillation(case, args.record)
        return _report(args, method, errors, f", {steps} steps")
    if args.record is not None:
        raise UserError(f"--record writes runs of score distillation; {args.trace} is a trace of {case.kind}")
    return _report(args, case.kind, compare(case))


def _distillation(case: "Case", folder: Path | None) -> tuple[str, int, Mapping[str, "Deviation"]]:
    """The method and its steps, and what a replay of its run shows; written to `folder` as a trace of ours."""
    from ..traces.adapt import adapt
    from ..traces.trace import Trace, new_trace_folder, read_trace, write_trace
    from ..traces.verify import deviations, replay

    trace = read_trace(case.folder)
    if folder is not None:
        new_trace_folder(folder)
    backbone = case.backbone()
    adapt(backbone, trace.run.prediction_type, trace.run.vae_scaling_factor)
    ours = replay(backbone, trace, case.forced)
    errors = deviations(ours, trace)
    if folder is not None:
        if "accepted" in errors and errors["accepted"].max_abs:
            raise UserError("our verdicts are not the recorded ones: the recorded draws do not make a trace of ours")
        write_trace(folder, Trace(trace.run, {name: ours.get(name, value) for name, value in trace.arrays.items()}))
    return trace.run.method, trace.steps, errors


def _report(args: argparse.Namespace, method: str, errors: Mapping[str, "Deviation"], more: str = "") -> int:
    """Prints how far each quantity is from the recorded one; 1 if one is beyond the tolerance."""
    ok, name = all(d.within(args.tolerance) for d in errors.values()), args.trace.resolve().name
    if args.json:
        shown = {quantity: asdict(d) for quantity, d in errors.items()}
        print(json.dumps({"case": name, "method": method, "ok": ok, "deviations": shown}, indent=1))
        return int(not ok)
    print(f"{name}: {method}{more}")
    for quantity, d in errors.items():
        verdict = "" if d.within(args.tolerance) else "  beyond the tolerance"
        print(f"  {quantity:14}{d.max_abs:10.2e} absolute{d.max_rel:10.2e} relative{verdict}")
    print("ok" if ok else f"not within {args.tolerance:g}")
    return int(not ok)
