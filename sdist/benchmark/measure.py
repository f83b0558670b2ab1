"""The same edits through the plain reference loop, through ours one by one, and through ours as a queue: times and ratios."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import torch

from ..config.settings import Settings
from ..diffusion import Estimate
from ..editors.base import Observers
from ..editors.loading import LoadedMethod, load_method
from ..editors.score_distillation import ScoreDistillation
from ..edits.request import Prepared, Request
from ..errors import UserError
from ..filters import StdThreshold
from ..losses.sbp import SBP
from ..models.base import Backbone
from ..normalizers import UnitStd
from ..regularizers.attention_mask import AttentionMask
from ..regularizers.source_pull import SourcePull
from ..tinyworld.edits import sample_edit
from . import plain_loop as reference
from .bare import bare_rows_per_second, now
from .engines import compare_engines

SEED = 2027  # of the edits
MODES = ("reference", "single", "queue")


@dataclass(frozen=True)
class Timing:
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
        vars(self._backbone)["estimate"] = self._timed
        return self

    def __exit__(self, *_: object) -> None:
        del vars(self._backbone)["estimate"]

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


def measure(settings: Settings, edits: int, repetitions: int, parallel: int | None, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures; `agree` says whether the accept sequences do. Raises UserError for a method unknown to the reference."""
    _check(settings.editor)
    ours, theirs = load_method(settings), load_method(replace(settings, compile="none"))
    reference.explicit_attention(theirs.model)
    with tempfile.TemporaryDirectory() as folder:
        images = prepare_edits(Path(folder), ours, edits)
        passes = _passes(ours, theirs, images, parallel)
        few = few_steps(settings)
        warm = _passes(LoadedMethod(few, ours.model), LoadedMethod(few, theirs.model), images, parallel)
        rows = {mode: run().widest for mode, run in warm.items()}["queue"]
        bare_rows_per_second(ours.model, images[0], rows)
        timed: dict[str, list[Timing]] = {mode: [] for mode in MODES}
        bare: list[float] = []
        for turn in range(repetitions):
            for mode, run in passes.items():
                timed[mode].append(run())
                say(f"{turn + 1} of {repetitions}, {mode}: {timed[mode][-1].seconds / edits:.2f} s per edit")
            bare.append(bare_rows_per_second(ours.model, images[0], rows))
        memory = {mode: peak_memory(mode, settings, edits, parallel) for mode in MODES}
        engines = compare_engines(ours.model, images[0], settings.compile, repetitions)
    return {**report(timed, bare, memory, edits), "network_rows_per_second": engines}


def report(timed: dict[str, list[Timing]], bare: Sequence[float], memory: dict[str, int], edits: int) -> dict[str, Any]:
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


def prepare_edits(folder: Path, method: LoadedMethod, edits: int) -> list[Prepared]:
    """Edits of drawn scenes, scaled to the model's native size; their noise is keyed by their pixels."""
    prepared = []
    for index in range(edits):
        pair = sample_edit(SEED, index)
        pair.source_image.save(folder / f"{index:03d}.png")
        prepared.append(method.prepare(Request(folder / f"{index:03d}.png", pair.source, pair.target)))
    return prepared


def few_steps(settings: Settings) -> Settings:
    """The same with two steps at most, to warm up or to measure memory."""
    return replace(settings, editor=replace(settings.editor, steps=min(2, settings.editor.steps)))


def _passes(
    ours: LoadedMethod, theirs: LoadedMethod, images: Sequence[Prepared], parallel: int | None
) -> dict[str, Callable[[], Timing]]:
    editor = cast(ScoreDistillation, ours.editor)  # it was checked
    method = editor.method(theirs.model)

    @torch.no_grad()
    def loop() -> list[tuple[int, ...]]:
        runs = []
        for image in images:
            one = editor.encode(theirs.model, [image])
            runs.append(reference.edit(theirs.model, method, one, (image.request.seed, image.key)))
            theirs.model.decode(runs[-1].latents)
        return [tuple(run.attempts) for run in runs]

    def single() -> list[tuple[int, ...]]:
        return [result.attempts for image in images for result in ours.edit([image])]

    def queue() -> list[tuple[int, ...]]:
        return [result.attempts for result in ours.edit(images, Observers(parallel=parallel))]

    return {"reference": _timer(theirs.model, loop), "single": _timer(ours.model, single), "queue": _timer(ours.model, queue)}


def _timer(backbone: Backbone, run: Callable[[], list[tuple[int, ...]]]) -> Callable[[], Timing]:
    def timed() -> Timing:
        with Stopwatch(backbone) as watch:
            start = now(backbone.device)
            attempts = run()
            seconds = now(backbone.device) - start
        return Timing(seconds, watch.seconds, watch.rows, watch.widest, tuple(attempts))

    return timed


def peak_memory(mode: str, settings: Settings, edits: int, parallel: int | None) -> int:
    """Bytes at most while a fresh process does a few steps: CUDA's own figure, else resident memory with everything loaded."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_peak_here, mode, settings, edits, parallel).result()


def _peak_here(mode: str, settings: Settings, edits: int, parallel: int | None) -> int:
    method = load_method(replace(few_steps(settings), compile="none" if mode == "reference" else settings.compile))
    if mode == "reference":
        reference.explicit_attention(method.model)
    with tempfile.TemporaryDirectory() as folder:
        images = prepare_edits(Path(folder), method, edits if mode == "queue" else 1)
        _passes(method, method, images, parallel)[mode]()
    if method.model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(method.model.device)
    return resident()


def resident() -> int:
    """This process's largest resident memory so far in bytes; not getrusage's on Linux, which counts the parent's at the fork."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    from resource import RUSAGE_SELF, getrusage

    return getrusage(RUSAGE_SELF).ru_maxrss


def _check(method: Any) -> None:
    """Raises UserError unless the editor is LUSD as the paper describes it."""
    parts = {"loss": (method.loss, SBP), "filter": (method.filter, StdThreshold), "normalizer": (method.normalizer, UnitStd)}
    wrong = [name for name, (part, kind) in parts.items() if not isinstance(part, kind)]
    regularizers: list[Any] = list(method.regularizers.values())
    kinds = [type(part) for part in regularizers]
    if kinds != [AttentionMask, SourcePull] or (regularizers[0].timing, regularizers[0].beta) != ("current", "k/N"):
        wrong.append("regularizers")
    if method.stop.is_on:
        wrong.append("stop")
    if wrong:
        raise UserError(f"the benchmark compares LUSD as the paper describes it; these settings change its {', '.join(wrong)}")


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def as_lines(figures: dict[str, Any]) -> list[str]:
    """The figures for a terminal."""

    def as_text(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{name} {as_text(part)}" for name, part in value.items())
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return [f"{name:22s} {as_text(value)}" for name, value in figures.items()]
