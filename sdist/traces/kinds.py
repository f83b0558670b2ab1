"""Which module replays which kind of trace, by the key `trace` of its case.json.

Each has `compare(case)`, which gives a Deviation for each recorded quantity that it recomputes. A trace without that key is a run
of score distillation, see verify.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import UserError, unknown
from ..models.base import Backbone
from ..models.loading import load_backbone
from .deviation import Deviation
from .files import SETTINGS, read_arrays

KINDS = {
    "flowedit": "flow_editors",
    "dvrf": "flow_editors",
    "flowalign": "flow_editors",
    "rfds": "rfds",
    "rfds_rev": "rfds",
    "attention": "joint_attention",
    "vimaedit": "vimaedit",
    "vimaedit_step": "vimaedit_step",
    "vimaedit_inversion": "vimaedit_inversion",
    "vimaedit_injection": "vimaedit_injection",
    "vimaedit_network": "vimaedit_network",
    "vimaedit_embedding": "vimaedit_network",
    "lime_words": "lime_parts",
    "lime_attention": "lime_parts",
    "lime_localize": "lime_walks",
    "lime_edit": "lime_walks",
    "vimaedit_grounding": "vimaedit_grounding",
}


@dataclass(frozen=True)
class Case:
    """A recorded trace on disk, and what to replay it with."""

    folder: Path
    settings: Mapping[str, Any]  # its case.json
    model: str | None = None  # instead of the pipeline that the trace names
    device: str = "cpu"
    forced: bool = False  # every step starts from the recorded latents, not from ours

    @property
    def kind(self) -> str:
        return str(self.settings.get("trace"))

    def need(self, *names: str) -> list[Any]:
        """Those settings. Raises UserError if one is missing."""
        if missing := [name for name in names if self.settings.get(name) is None]:
            raise UserError(f"{self.folder / SETTINGS} lacks {', '.join(missing)}")
        return [self.settings[name] for name in names]

    def arrays(self, *names: str) -> dict[str, Tensor]:
        """All arrays of the trace. Raises UserError if they cannot be read or lack one of `names`."""
        return read_arrays(self.folder, *names)

    def beside(self, name: str) -> Path:
        """A folder that the trace's settings name: in its own, or beside it."""
        places = (self.folder / name, self.folder.resolve().parent / name)
        for place in places:
            if place.is_dir():
                return place
        raise UserError(f"no {name} in {' or '.join(map(str, places))}; name one with --model")

    def backbone(self, conditions: int = 0) -> Backbone:
        """The model that recorded the trace, or that the caller named, see `load_backbone`."""
        source = self.model or str(self.beside(self.settings.get("model") or "pipeline"))
        return load_backbone(source, self.device, conditions=conditions)

    def loaded(self, *names: str, conditions: int = 0) -> tuple[Backbone, dict[str, Tensor]]:
        """The model, and all arrays of the trace on its device. Raises UserError if they lack one of `names`."""
        arrays, model = self.arrays(*names), self.backbone(conditions)
        return model, {name: value.to(model.device) for name, value in arrays.items()}


def compare(case: Case) -> dict[str, Deviation]:
    """By recorded quantity. Raises UserError for a kind that is not known here."""
    if case.kind not in KINDS:
        raise unknown("trace", case.kind, KINDS, str(case.folder / SETTINGS))
    return import_module(f".{KINDS[case.kind]}", __package__).compare(case)
