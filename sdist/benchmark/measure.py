"""The same edits through the plain reference loop, through ours one by one, and through ours as a queue: times and ratios."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from ..config.settings import Settings
from ..diffusion import Estimate
from ..distillation.method import Method
from ..editors.score_distillation import edit_batch, load_model, make_edit, method_for, prepare
from ..edits.request import Prepared, Request, Result
from ..errors import UserError
from ..filters import StdThreshold
from ..losses.sbp import SBP
from ..models.backbone import Backbone
from ..normalizers import UnitStd
from ..tinyworld.edits import sample_edit
from . import plain_loop as reference

SEED = 2027  # of the edits
MODES = ("reference", "single", "queue")
BARE_CALLS = 5  # of the network alone, each turn


@dataclass(frozen=True)
class Timed:
    """One pass over all edits."""

    seconds: float
    network: float  # seconds of it inside the network
    rows: int  # that the network saw
    widest: int  # rows of its largest call
    attempts: tuple[tuple[int, ...], ...]  # draws of each step of each edit


class Stopwatch:
    """Counts and times the calls of a network while it is in use; on CUDA by events, for which nobody waits."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone, self._estimate = backbone, backbone.estimate
        self._spans: list[tuple[Any, Any]] = []
        self.rows = self.widest = 0

    def __enter__(self) -> "Stopwatch":
        self._backbone.estimate = self._timed  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        self._backbone.estimate = self._estimate  # type: ignore[method-assign]

    @property
    def seconds(self) -> float:
        """In the network so far; call it when the device is done."""
        cuda = self._backbone.device.type == "cuda"
        return sum(start.elapsed_time(end) / 1000 if cuda else end - start for start, end in self._spans)

    def _timed(self, z_t: torch.Tensor, *rest: Any) -> Estimate:
        start = mark(self._backbone.device)
        estimate = self._estimate(z_t, *rest)
        self._spans.append((start, mark(self._backbone.device)))
        self.rows, self.widest = self.rows + len(z_t), max(self.widest, len(z_t))
        return estimate


def mark(device: torch.device) -> Any:
    """A point in time: of the device's stream on CUDA, else of the clock."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(settings: Settings, edits: int, repetitions: int, lanes: int | None, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures; `agree` says whether the accept sequences do. UserError for a method that the reference does not know."""
    method = settings.method()
    _check(method)
    ours, theirs = load_model(settings), load_model(replace(settings, compile=False))
    reference.explicit_attention(theirs)
    with tempfile.TemporaryDirectory() as folder:
        jobs = make_jobs(Path(folder), ours, settings, edits)
        passes = _passes(ours, theirs, settings, jobs, lanes)
        few = replace(settings, steps=min(2, settings.steps))
        rows = {mode: warm().widest for mode, warm in _passes(ours, theirs, few, jobs, lanes).items()}["queue"]
        bare_rows_per_second(ours, jobs[0], rows)
        timed: dict[str, list[Timed]] = {mode: [] for mode in MODES}
        bare: list[float] = []
        for turn in range(repetitions):
            for mode, run in passes.items():
                timed[mode].append(run())
                say(f"{turn + 1} of {repetitions}, {mode}: {timed[mode][-1].seconds / edits:.2f} s an edit")
            bare.append(bare_rows_per_second(ours, jobs[0], rows))
        memory = {mode: peak_memory(mode, settings, edits, lanes) for mode in MODES}
    return report(timed, bare, memory, edits)


def report(timed: dict[str, list[Timed]], bare: Sequence[float], memory: dict[str, int], edits: int) -> dict[str, Any]:
    """Figures from the passes; times of the medians, ratios of passes of the same turn."""
    agree = len({run.attempts for runs in timed.values() for run in runs}) == 1
    seconds = {mode: [run.seconds for run in runs] for mode, runs in timed.items()}
    last = {mode: runs[-1] for mode, runs in timed.items()}
    draws = sum(map(sum, last["reference"].attempts))
    return {
        "agree": agree,
        "throughput_ratio": _spread([a / b for a, b in zip(seconds["reference"], seconds["queue"], strict=True)]),
        "latency_ratio": _spread([a / b for a, b in zip(seconds["reference"], seconds["single"], strict=True)]),
        "overhead_share": statistics.median(1 - run.network / run.seconds for run in timed["queue"]),
        "peak_memory_ratio": memory["queue"] / memory["reference"],
        "peak_memory_bytes": memory,
        "evaluations_per_image": {mode: run.rows / 2 / edits for mode, run in last.items()},
        "seconds_per_image": {mode: _spread([s / edits for s in values]) for mode, values in seconds.items()},
        "rows_per_second": {mode: statistics.median(run.rows / run.seconds for run in runs) for mode, runs in timed.items()},
        "bare_rows_per_second": statistics.median(bare),
        "bare_ratio": _spread([run.rows / run.seconds / alone for run, alone in zip(timed["queue"], bare, strict=True)]),
        "draws_per_step": draws / sum(map(len, last["reference"].attempts)),
        "occupancy": draws / (last["queue"].rows / 2),  # of the draws that the queue tried, those that counted
    }


def make_jobs(folder: Path, backbone: Backbone, settings: Settings, edits: int) -> list[Prepared]:
    """Edits of drawn scenes, scaled to the model's native size; their noise is keyed by their pixels."""
    jobs = []
    for index in range(edits):
        pair = sample_edit(SEED, index)
        pair.source_image.save(folder / f"{index:03d}.png")
        jobs.append(prepare(backbone, settings, Request(folder / f"{index:03d}.png", pair.source, pair.target)))
    return jobs


def _passes(
    ours: Backbone, theirs: Backbone, settings: Settings, jobs: Sequence[Prepared], lanes: int | None
) -> dict[str, Callable[[], Timed]]:
    method = method_for(theirs, settings)

    @torch.no_grad()
    def loop() -> list[tuple[int, ...]]:
        runs = []
        for prepared in jobs:
            one = make_edit(theirs, settings, [prepared])
            runs.append(reference.edit(theirs, method, one, settings.timesteps, (prepared.request.seed, prepared.key)))
            theirs.decode(runs[-1].latents)
        return [tuple(run.attempts) for run in runs]

    def single() -> list[tuple[int, ...]]:
        return [result.attempts for prepared in jobs for result in edit_batch(ours, settings, [prepared])]

    def queue() -> list[tuple[int, ...]]:
        results: list[Result] = edit_batch(ours, settings, jobs, lanes=lanes)
        return [result.attempts for result in results]

    return {"reference": _timer(theirs, loop), "single": _timer(ours, single), "queue": _timer(ours, queue)}


def _timer(backbone: Backbone, run: Callable[[], list[tuple[int, ...]]]) -> Callable[[], Timed]:
    def timed() -> Timed:
        with Stopwatch(backbone) as watch:
            start = now(backbone.device)
            attempts = run()
            seconds = now(backbone.device) - start
        return Timed(seconds, watch.seconds, watch.rows, watch.widest, tuple(attempts))

    return timed


@torch.no_grad()
def bare_rows_per_second(backbone: Backbone, prepared: Prepared, rows: int) -> float:
    """Of the network alone, compiled if the backbone is: the same rows, one call after the other."""
    width, height = (side // backbone.factor for side in prepared.image.size)
    z = torch.randn(rows, backbone.unet.config.in_channels, height, width, device=backbone.device)
    t, text = torch.full((rows,), 500, device=backbone.device), backbone.embed([prepared.request.target]).repeat(rows)
    start = now(backbone.device)
    for _ in range(BARE_CALLS):
        backbone.estimate(z, t, text)
    return BARE_CALLS * rows / (now(backbone.device) - start)


def peak_memory(mode: str, settings: Settings, edits: int, lanes: int | None) -> int:
    """Bytes at most while a fresh process does a few steps: CUDA's own figure, else resident memory with everything loaded."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_peak_here, mode, settings, edits, lanes).result()


def _peak_here(mode: str, settings: Settings, edits: int, lanes: int | None) -> int:
    settings = replace(settings, steps=min(2, settings.steps), compile=settings.compile and mode != "reference")
    backbone = load_model(settings)
    if mode == "reference":
        reference.explicit_attention(backbone)
    with tempfile.TemporaryDirectory() as folder:
        jobs = make_jobs(Path(folder), backbone, settings, edits if mode == "queue" else 1)
        _passes(backbone, backbone, settings, jobs, lanes)[mode]()
    if backbone.device.type == "cuda":
        return torch.cuda.max_memory_allocated(backbone.device)
    return resident()


def resident() -> int:
    """This process's largest resident memory so far in bytes; not getrusage's on Linux, which counts the parent's at the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    from resource import RUSAGE_SELF, getrusage

    return getrusage(RUSAGE_SELF).ru_maxrss


def _check(method: Method) -> None:
    parts = {"loss": (method.loss, SBP), "filter": (method.filter, StdThreshold), "normalizer": (method.normalizer, UnitStd)}
    wrong = [name for name, (part, kind) in parts.items() if not isinstance(part, kind)]
    mask = method.regularizers.get("attention_mask")
    if list(method.regularizers) != ["attention_mask", "source_pull"] or (mask.timing, mask.beta) != ("current", "k/N"):  # type: ignore[union-attr]
        wrong.append("regularizers")
    if wrong:
        raise UserError(f"the benchmark compares LUSD as the paper describes it; these settings change its {', '.join(wrong)}")


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def as_lines(figures: dict[str, Any]) -> list[str]:
    """The figures for a terminal."""

    def told(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{name} {told(part)}" for name, part in value.items())
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return [f"{name:22s} {told(value)}" for name, value in figures.items()]
