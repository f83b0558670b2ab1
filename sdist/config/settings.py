"""The settings of a run: what a yaml and the command line may say."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from ..distillation.method import Method
from ..draws import RandomSampler
from ..editors.base import SHARED
from ..errors import UserError
from ..models.precision import Precision
from ..optimizer import OptimizerSettings
from ..prompts import Difference
from ..registry import BASELINES, FILTERS, GAMMAS, LOSSES, NORMALIZERS, Registry

SLOTS: dict[str, Registry] = {
    "loss": LOSSES,
    "filter": FILTERS,
    "normalizer": NORMALIZERS,
    "gamma": GAMMAS,
    "baseline": BASELINES,
}


@dataclass
class PromptSettings:
    """How prompts are read."""

    null: str = ""  # the unconditional prompt
    negative: str = ""  # what the combination loss may push away from
    difference: Difference = "paper"  # rule for the words that differ, see sdist/prompts.py
    pieces: Literal["all", "last"] = "all"  # tokens of a noun that is split: all, or the last one (release)


@dataclass
class LogSettings:
    """Where runs are logged (--log) and how often images are."""

    images_every: int = 30  # steps of the first image between logged images
    offline: bool = True  # wandb: keep the run on disk
    project: str = "sdist"
    group: str = ""  # wandb group, for ablations

    def __post_init__(self) -> None:
        if self.images_every < 1:
            raise UserError(f"log.images_every must be at least 1, got {self.images_every}")


@dataclass
class Settings:
    """All of a run but its images and prompts; the slots are mappings {name: ..., field: ...}."""

    model: str = "tinyworld"  # alias, hub id or folder
    device: str = "auto"
    precision: Precision = "auto"  # of the noise predictor alone: fp32, fp16, bf16; auto is fp16 on CUDA, else fp32
    compile: bool = False  # the network by torch.compile: a minute at the start, less at every step
    checkpoint: bool = False  # less memory, more time for losses that differentiate through the network (CDS)
    size: str = "native"  # "native": short side to the model's; "keep"; or "WIDTHxHEIGHT"
    seed: int = 0
    steps: int = 200  # accepted steps
    timesteps: RandomSampler = field(default_factory=RandomSampler)
    prompts: PromptSettings = field(default_factory=PromptSettings)
    loss: Any = "dds"
    regularizers: Any = field(default_factory=dict)  # {name: {field: ...}}, applied in this order; null switches off
    filter: Any = None
    normalizer: Any = None
    gamma: Any = "constant"
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    baseline: Any = None  # one of diffusers\' editors instead of score distillation, see docs/baselines.md
    scale: Any = field(default_factory=dict)  # of the model; given here it overrides sdist/models/catalogue.py
    log: LogSettings = field(default_factory=LogSettings)

    def method(self) -> Method:
        """The components that these settings name."""
        return Method(**{f.name: getattr(self, f.name) for f in fields(Method)})

    def plain(self) -> dict[str, Any]:
        """Every value as plain data, from which `resolve` makes equal settings."""
        data = asdict(self)
        for slot, registry in SLOTS.items():
            data[slot] = _named(registry, getattr(self, slot))
        data["regularizers"] = {name: asdict(r) for name, r in self.regularizers.items()}
        return {key: value for key, value in data.items() if (key in SHARED if self.baseline else key != "baseline")}


def _named(registry: Registry, component: Any) -> dict[str, Any] | None:
    if component is None:
        return None
    name = next(n for n in registry.names() if registry.get(n) is type(component))
    return {"name": name, **asdict(component)}
