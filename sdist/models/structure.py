"""What a network of diffusers or transformers is made of, held against a fresh one of the same configuration."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from diffusers import ModelMixin
from torch import nn
from transformers import PreTrainedModel

PLAIN = (bool, int, float, str, type(None))
SWITCHES = (  # which change no output, or by rounding alone, or are named elsewhere: tiling
    "training", "gradient_checkpointing", "fused_projections", "name_or_path", "use_slicing", "use_tiling",
)  # fmt: skip


class Part(NamedTuple):
    """A module: its class, and the settings that it keeps."""

    kind: type
    settings: Mapping[str, Any]


def differences(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Where a network is another than its configuration says, and how. Of others than diffusers' nothing is known."""
    if not isinstance(network, ModelMixin | PreTrainedModel):
        return
    kind: Any = type(network)
    config = dict(network.config) if isinstance(network, ModelMixin) else network.config.to_dict()
    fresh = _fresh(kind, json.dumps(config, sort_keys=True, default=str))
    parts = _parts(network)
    for place, part in fresh.items():
        if place not in parts:
            yield place, f"{part.kind.__name__} taken out"
        elif parts[place].kind is not part.kind and not _is_adapter(parts[place].kind):
            yield place, f"{part.kind.__name__} replaced by {parts[place].kind.__name__}"
        else:
            changed = {name: parts[place].settings.get(name, value) for name, value in part.settings.items()}
            yield from ((place, f"{name}={value}") for name, value in changed.items() if value != part.settings[name])


def _is_adapter(kind: type) -> bool:
    """Whether it is a layer of peft around the one that was there, of which the adapter is told."""
    return kind.__module__.partition(".")[0] == "peft"


@lru_cache(maxsize=8)
def _fresh(kind: Any, config: str) -> Mapping[str, Part]:
    """The parts of a network with weights that have no memory; none if it cannot be made so."""
    try:
        with torch.device("meta"):
            make = kind.from_config if issubclass(kind, ModelMixin) else lambda values: kind(kind.config_class.from_dict(values))
            return _parts(make(json.loads(config)))
    except Exception:  # of any class: it reads values while it is made, or its configuration is not one
        return {}


def _parts(network: nn.Module) -> dict[str, Part]:
    return {
        place.replace(".base_layer", ""): Part(
            type(module),
            {name: value for name, value in vars(module).items() if _is_setting(name, value)},
        )
        for place, module in network.named_modules()
    }


def _is_setting(name: str, value: Any) -> bool:
    return isinstance(value, PLAIN) and not name.startswith("_") and name not in SWITCHES
