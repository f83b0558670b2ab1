"""case.json: the settings of a recorded run, and the method that they mean."""

import json
import math
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ..config.build import build
from ..distillation.method import Method
from ..errors import UserError, unknown
from ..filters import StdThreshold
from ..gammas import ReverseSigmoid
from ..losses.cds import CDS
from ..losses.dds import DDS
from ..losses.sbp import SBP
from ..losses.sds import SDS
from ..normalizers import UnitStd
from ..optimizer import OptimizerSettings
from ..registry import REGULARIZERS
from ..regularizers.attention_mask import AttentionMask
from ..regularizers.source_pull import SourcePull
from ..timesteps import Uniform
from .files import SETTINGS, read_settings

TIMING: dict[str, Literal["previous", "current"]] = {"previous accepted step": "previous", "this step": "current"}
Beta = Literal["k/N", "k/(N-1)"]


@dataclass
class RecordedRun:
    """One recorded run; a file may leave out what its method does not use, and may hold more."""

    method: str  # one of METHODS
    source_prompt: str
    target_prompt: str
    steps: int
    learning_rate: float
    loss_scale: float = 2000.0  # z moves by learning_rate x loss_scale / (H W) x gradient
    prediction_type: str = "epsilon"
    vae_scaling_factor: float | None = None  # none: the pipeline's
    guidance_scale: float = 7.5
    # lusd
    threshold: float = 0.01
    threshold_decay: float = 0.99
    max_attempts: int | None = None  # none: as many as it takes
    regularizer_weight: float = 0.02
    mask_momentum: float = 0.1
    token_index: list[int] = field(default_factory=list)
    cross_resolution: int = 16  # side of the attention's query grid
    self_resolution: int = 32
    attention: str = "previous accepted step"  # or "this step"
    beta: str = "k/(N-1)"  # or "k/N"
    gamma_high: float = 0.15
    gamma_low: float = 0.01
    gamma_speed: float = 5.0
    # cds
    w_cut: float = 3.0
    patch_size: list[int] = field(default_factory=lambda: [1, 2])
    n_patches: int = 256
    temperature: float = 0.07

    def method_for(self, height: int, width: int) -> Method:
        """The method for latents of that size. Raises UserError for a value that it cannot have."""
        return METHODS[self.method](self, height, width)


def read_run(folder: Path) -> RecordedRun:
    """The settings of a trace. Raises a UserError that names the file and the key."""
    data, path = read_settings(folder), folder / SETTINGS
    required = [f.name for f in fields(RecordedRun)[:5]]
    if missing := [key for key in required if data.get(key) is None]:
        raise UserError(f"{path} lacks {', '.join(missing)}")
    run: RecordedRun = build(
        RecordedRun, {f.name: data[f.name] for f in fields(RecordedRun) if data.get(f.name) is not None}, str(path)
    )
    choices: dict[str, Collection[str]] = {"method": METHODS, "attention": TIMING, "beta": get_args(Beta)}
    for key, allowed in choices.items():
        if getattr(run, key) not in allowed:
            raise unknown(key, getattr(run, key), allowed, str(path))
    return run


def _lusd(run: RecordedRun, height: int, width: int) -> Method:
    mask = AttentionMask(
        cross_level=_level(run.cross_resolution, height),
        self_level=_level(run.self_resolution, height),
        momentum=run.mask_momentum,
        timing=TIMING[run.attention],
        beta=cast(Beta, run.beta),
    )
    attempts = StdThreshold.max_attempts if run.max_attempts is None else run.max_attempts
    return Method(
        SBP(),
        {REGULARIZERS.name_of(part): part for part in (mask, SourcePull(run.regularizer_weight))},
        StdThreshold(threshold=run.threshold, decay=run.threshold_decay, max_attempts=attempts),
        UnitStd(),
        ReverseSigmoid(run.gamma_high, run.gamma_low, run.gamma_speed),
        _optimizer(run, height, width),
        run.steps,
    )


def _level(resolution: int, height: int) -> int:
    level = math.log2(height / resolution) if resolution > 0 else math.nan
    if level not in range(16):
        raise UserError(
            f"case.json: attention of {resolution} rows does not belong to latents of {height}: not 1/1, 1/2, 1/4, ..."
        )
    return int(level)


def _dds(run: RecordedRun, height: int, width: int) -> Method:
    return Method(DDS(run.guidance_scale), optimizer=_optimizer(run, height, width), steps=run.steps)


def _sds(run: RecordedRun, height: int, width: int) -> Method:
    return Method(SDS(run.guidance_scale), optimizer=_optimizer(run, height, width), steps=run.steps)


def _cds(run: RecordedRun, height: int, width: int) -> Method:
    loss = CDS(
        run.guidance_scale, cut_weight=run.w_cut, cut_scale=height * width / run.loss_scale,
        patches=run.n_patches, patch_sizes=tuple(run.patch_size), temperature=run.temperature,
    )  # fmt: skip
    return Method(loss, optimizer=_optimizer(run, height, width), steps=run.steps)


def _optimizer(run: RecordedRun, height: int, width: int) -> OptimizerSettings:
    return OptimizerSettings(lr=run.learning_rate * run.loss_scale / (height * width))


METHODS: dict[str, Callable[[RecordedRun, int, int], Method]] = {"lusd": _lusd, "dds": _dds, "sds": _sds, "cds": _cds}
NAMES = {SBP: "lusd", DDS: "dds", SDS: "sds", CDS: "cds"}


def run_of(method: Method, size: tuple[int, int], **values: Any) -> RecordedRun:
    """The recorded run of a method for latents of that size, with prompts and tokens as `values`.

    Raises UserError if the format cannot hold all of the method.
    """
    name = NAMES.get(type(method.loss))
    if name is None:
        raise UserError(f"a trace can hold {', '.join(METHODS)}, not the loss {type(method.loss).__name__}")
    height, width = size
    step = method.optimizer.lr * (2000 / (height * width) if method.optimizer.scale == "released" else 1)
    loss_scale = height * width / method.loss.cut_scale if isinstance(method.loss, CDS) else 2000
    scales: dict[str, Any] = {"learning_rate": step * height * width / loss_scale, "loss_scale": loss_scale}
    run = RecordedRun(name, steps=method.steps, **scales, **values, **_component_keys(method, height))
    if not _same(run.method_for(height, width), method):
        raise UserError(f"a trace of {name} cannot hold this method: it has parts or values that the format does not hold")
    return run


def _component_keys(method: Method, height: int) -> dict[str, Any]:
    """The keys of a recorded run for the method's components."""
    loss, keys = method.loss, dict[str, Any]()
    if isinstance(loss, (DDS, SDS, CDS)):
        keys["guidance_scale"] = loss.guidance_scale
    if isinstance(loss, CDS):
        keys |= {"w_cut": loss.cut_weight, "patch_size": list(loss.patch_sizes), "n_patches": loss.patches}
        keys |= {"temperature": loss.temperature}
    if isinstance(accept := method.filter, StdThreshold):
        keys |= {"threshold": accept.threshold, "threshold_decay": accept.decay, "max_attempts": accept.max_attempts}
    for part in method.regularizers.values():
        if isinstance(part, AttentionMask):
            attention = next(name for name, timing in TIMING.items() if timing == part.timing)
            keys |= {"mask_momentum": part.momentum, "attention": attention, "beta": part.beta}
            keys |= {"cross_resolution": height >> part.cross_level, "self_resolution": height >> part.self_level}
        if isinstance(part, SourcePull):
            keys["regularizer_weight"] = part.weight
    if isinstance(gamma := method.gamma, ReverseSigmoid):
        keys |= {"gamma_high": gamma.high, "gamma_low": gamma.low, "gamma_speed": gamma.speed}
    return keys


def _same(rebuilt: Method, method: Method) -> bool:
    """Equal but for how timesteps are drawn, which a trace records, and for how the step size is written."""
    return _plain(rebuilt) == _plain(method)


def _plain(method: Method) -> Method:
    accept, loss = method.filter, method.loss
    if isinstance(loss, CDS):
        loss = replace(loss, cut_scale=1.0, patch_sizes=tuple(loss.patch_sizes))
    accept = None if accept is None else replace(accept, redraw_timestep=False)
    optimizer = replace(method.optimizer, lr=1.0, scale="per_element")
    return replace(method, loss=loss, filter=accept, optimizer=optimizer, timesteps=Uniform())


def run_json(run: RecordedRun) -> str:
    return json.dumps(asdict(run), indent=1, ensure_ascii=False) + "\n"
