"""Layers of settings, one over the other: later ones win, and short forms are written out."""

from collections.abc import Sequence
from typing import Any, cast

from omegaconf import Container, DictConfig, OmegaConf

from ..registry import EDITORS, slot_defaults
from .settings import FLAT

ALIAS = "baseline"  # of the key `editor`, in older yamls and run cards


def layered(layers: Sequence[DictConfig]) -> DictConfig:
    """Later layers win; a slot that gets another name loses the fields of the component that it had."""
    data = spelled(layers[0])
    for layer in map(spelled, layers[1:]):
        for slot, default in slots().items():
            before, name = (name_in(node.get(slot)) for node in (data, layer))
            if name is not None and name != (before or default):
                data.pop(slot, None)
        data = overlaid(data, layer)
    return data


def overlaid(below: DictConfig, layer: DictConfig) -> DictConfig:
    """The later one wins, also where it holds a list or a value and the other a mapping, or the other way around."""
    below = merged(below)
    _give_way(below, layer)
    return merged(below, layer)


def _give_way(below: DictConfig, layer: DictConfig) -> None:
    """Removes what has another shape in the layer above."""
    for key in layer:
        old, new = below._get_node(key), layer._get_node(key)
        if isinstance(old, DictConfig) and isinstance(new, DictConfig):
            _give_way(old, new)
        elif isinstance(old, Container) and type(old) is not type(new):
            below.pop(key)


def spelled(layer: DictConfig) -> DictConfig:
    """A copy of a layer, with short forms written out."""
    layer = merged(layer)
    if ALIAS in layer:
        layer["editor"] = layer.pop(ALIAS)
    if isinstance(layer.get("compile"), bool):  # of older run cards
        layer["compile"] = "inductor" if layer["compile"] else "none"
    for key in (*slots(), "optimizer"):
        if isinstance(layer.get(key), str):
            layer[key] = {"name": layer[key]}
    return layer


def with_steps(config: DictConfig, given: DictConfig) -> DictConfig:
    """`steps` that were given are the field of the chosen editor that counts them, whatever it is called."""
    name = name_in(config.get("editor"))
    if "steps" not in given or name not in EDITORS.names():
        return config
    config = merged(config)
    config["editor"][EDITORS.get(name).steps_field] = config.pop("steps")
    return config


def slots() -> dict[str, str | None]:
    """The keys that choose a component, and which one where none is named."""
    return {"editor": FLAT, **slot_defaults(EDITORS.get(FLAT))}


def name_in(component: Any) -> Any:
    return component.get("name") if isinstance(component, DictConfig) else component


def merged(*layers: Any) -> DictConfig:
    """A copy of mappings as one; later ones win."""
    return cast(DictConfig, OmegaConf.merge(*layers))


def kept_rate(layers: Sequence[DictConfig], first: str) -> str | None:
    """The optimizer whose learning rate another one is left with, by its name; None if each has its own."""
    name, owner = first, first
    for layer in map(spelled, layers):
        optimizer = layer.get("optimizer")
        name = name_in(optimizer) or name
        if isinstance(optimizer, DictConfig) and "lr" in optimizer:
            owner = name
    return owner if owner != name else None
