"""The settings of a run: what all editors share, and the editor itself with what it may be set to."""

from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import UserError
from ..models.precision import Precision
from ..plugins import loaded_plugins
from ..registry import EDITORS, one_of, plain

FLAT = "score_distillation"  # the editor whose keys stand at the top of a yaml, where no `editor` is named


@dataclass(frozen=True)
class LogSettings:
    """Where runs are logged (--log) and how often images are."""

    images_every: int = 30  # accepted steps between logged images
    offline: bool = True  # wandb: keep the run on disk
    project: str = "sdist"
    group: str = ""  # wandb group, for ablations

    def __post_init__(self) -> None:
        if self.images_every < 1:
            raise UserError(f"log.images_every must be at least 1, got {self.images_every}")


@dataclass(frozen=True)
class Settings:
    """All of a run but its images and prompts."""

    model: str = "tinyworld"  # alias, hub id or folder
    device: str = "auto"
    precision: Precision = "auto"  # of the noise predictor alone: fp32, fp16, bf16; auto is fp16 on CUDA, else fp32
    compile: bool = False  # the network by torch.compile: a minute at the start, less at every step
    checkpoint: bool = False  # less memory, more time for losses that differentiate through the network (CDS)
    size: str = "native"  # "native": short side to the model's; "keep"; or "WIDTHxHEIGHT"
    seed: int = 0  # of the first image; a request has its own
    scale: Any = field(default_factory=dict)  # of the model; given here it overrides sdist/models/catalogue.py
    log: LogSettings = field(default_factory=LogSettings)
    editor: Any = one_of("editor", FLAT)  # without it the keys of score_distillation stand beside these

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process builds equal settings from plain data, after the plugins that their components may come from."""
        from .build import restore

        return restore, (self.plain(), tuple(loaded_plugins()))

    def plain(self) -> dict[str, Any]:
        """Every value as plain data, from which `resolve` makes equal settings."""
        data = {key: value for key, value in plain(self).items() if key not in self.editor.ignores}
        if data["editor"]["name"] != FLAT:
            return data
        flat = data.pop("editor")
        del flat["name"]
        return {**data, **flat}


def common_keys(editor: str) -> list[str]:
    """The keys beside an editor's own that a yaml of it may have."""
    return [f.name for f in fields(Settings) if f.name not in EDITORS.get(editor).ignores]
