"""Low-rank changes of a model's weights, added to them once, so that nothing of a LoRA is left but other weights.

Hu et al. 2022, arXiv 2106.09685; files in the names of diffusers, peft and kohya are read by diffusers and peft.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from inspect import signature
from typing import Any

from torch import nn

from ..errors import UserError
from ..extras import need
from .added_files import AddedFile, load_added
from .base import Backbone
from .folders import find_class


def fuse(family: type[Backbone], parts: Mapping[str, Any], loras: Sequence[str]) -> None:
    """Adds FILE[:WEIGHT] to the networks, which are in float32. Raises UserError for what is no LoRA of this model."""
    if not loras:
        return
    need("--lora", "peft", extra="lora")
    pipeline = _pipeline(family, parts)
    weights = {f"lora{i}": weight_of(lora) for i, lora in enumerate(loras)}
    for name, lora in zip(weights, loras, strict=True):
        _load(pipeline, lora, name)
    pipeline.set_adapters(list(weights), list(weights.values()))
    pipeline.fuse_lora(components=_changed(pipeline), adapter_names=list(weights))
    pipeline.unload_lora_weights()
    for network in (part for part in parts.values() if isinstance(part, nn.Module)):
        network.eval().requires_grad_(False)


def weight_of(lora: str) -> float:
    """Of FILE:WEIGHT, 1 where there is none. Raises UserError for what is no number."""
    note = AddedFile.read(lora).note
    try:
        weight = float(note or 1)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise UserError(f"lora {lora}: its weight must be a number, got {note!r}; it is FILE:WEIGHT")
    return weight


def _pipeline(family: type[Backbone], parts: Mapping[str, Any]) -> Any:
    """diffusers' pipeline around the networks; it may change a scheduler, so that it gets a copy."""
    if not family.pipeline_name:
        raise UserError(f"a LoRA of a {family.__name__} is not known here")
    kind = find_class(family.pipeline_name)
    needed = [name for name, value in signature(kind.__init__).parameters.items() if value.default is value.empty]
    given = {name: parts.get(name) for name in needed if name != "self"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(**{**given, "scheduler": deepcopy(parts["scheduler"])})


def _load(pipeline: Any, lora: str, name: str) -> None:
    file, weights = load_added(lora, "lora")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # of a second LoRA, which is meant
            pipeline.load_lora_weights(weights, adapter_name=name)
    except (RuntimeError, ValueError, KeyError, IndexError, AttributeError) as error:  # of diffusers and peft, in many words
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"lora {file} is not of this model ({type(error).__name__}: {reason})") from error
    if not any(name in own for own in pipeline.get_list_adapters().values()):
        raise UserError(f"lora {file} changes no weight of this model: it is of another one, or no LoRA")


def _changed(pipeline: Any) -> list[str]:
    """The components that have adapters."""
    return [name for name, own in pipeline.get_list_adapters().items() if own]
