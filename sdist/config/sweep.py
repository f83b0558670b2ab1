"""Sweeps: variants of methods in one yaml, written out or as the product of a grid.

A variant is a method and overrides as --set takes them, so that `sdist run --method ... --set ...` makes the same images.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from ..errors import UserError, unknown
from .methods import find_yaml, shipped
from .texts import quoted
from .yaml_files import read_yaml

KEYS = ("base", "variants", "grid")
TABLES = ("evaluation", "comparison")  # folders beside those of the variants
FORMS = "variants: [METHOD, ...], variants: {NAME: METHOD or {KEY: VALUE}}, or grid: {KEY: [VALUE, ...]}"


@dataclass(frozen=True)
class Variant:
    """One method with overrides; `name` is that of its folder, its column and its runs."""

    name: str
    method: str
    overrides: tuple[str, ...] = ()  # "key=value"


@dataclass(frozen=True)
class Sweep:
    """Variants in their order; of a grid also the labels of each axis, of which the last one varies fastest."""

    name: str
    base: str | None
    variants: tuple[Variant, ...]
    axes: Mapping[str, tuple[str, ...]]


def read_sweep(name: str) -> Sweep:
    """The sweep of that name in experiments/, or of that yaml. Raises a UserError that names the key or variant that is wrong.

    Whether methods, keys and values exist is known when the settings of the variants are loaded.
    """
    path = find_yaml("sweep", name)
    data = read_yaml(path, partial(quoted, sweep=True))
    try:
        return _sweep(path.stem, OmegaConf.to_container(data) if isinstance(data, DictConfig) else data)
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from None


def changes(before: Any, after: Any, key: str = "") -> list[str]:
    """What leads from one tree of plain settings to another, as "key=value"; a component with another name stands whole."""
    if isinstance(before, dict) and isinstance(after, dict) and before.get("name") == after.get("name"):
        names = dict.fromkeys([*before, *after])
        return [c for n in names for c in changes(before.get(n), after.get(n), f"{key}.{n}" if key else str(n))]
    return [] if before == after else [f"{key}={as_text(after)}"]


def as_text(value: Any) -> str:
    """A value on one line of yaml."""
    return yaml.safe_dump([value], default_flow_style=True, width=1_000_000).strip()[1:-1]


def _sweep(name: str, data: Any) -> Sweep:
    if not isinstance(data, dict):
        raise UserError(f"a sweep is a mapping: {FORMS}")
    for key in data:
        if key not in KEYS:
            raise unknown("key", str(key), KEYS)
    if ("variants" in data) == ("grid" in data):
        raise UserError(f"needs one of {FORMS}")
    base = data.get("base")
    axes = _axes(data["grid"]) if "grid" in data else {}
    entries = _points(axes) if axes else _written(data["variants"])
    variants = tuple(_variant(name, entry, base) for name, entry in entries)
    _check_names([variant.name for variant in variants])
    return Sweep(name, base, variants, {key: tuple(values) for key, values in _short(axes).items()})


def _written(variants: Any) -> list[tuple[str, Any]]:
    """Names and entries of variants that are written out; a method's own name serves where none is given."""
    if not variants or not isinstance(variants, dict | list):
        raise UserError(f"variants is empty; a sweep is {FORMS}" if not variants else f"variants cannot be {variants!r}: {FORMS}")
    if isinstance(variants, dict):
        return [(_name(name), {"base": entry} if isinstance(entry, str) else entry) for name, entry in variants.items()]
    if not all(isinstance(method, str) for method in variants):
        raise UserError("a list of variants names methods; variants with overrides are {NAME: {KEY: VALUE}}")
    return [(Path(method).stem, {"base": method}) for method in variants]


def _variant(name: str, entry: Any, base: Any) -> Variant:
    if entry is not None and not isinstance(entry, dict):
        raise UserError(f"variant {name} is a method or {{KEY: VALUE}}, got {entry!r}")
    keys = dict(entry or {})
    method = keys.pop("base", base)
    if not isinstance(method, str):
        example = name if name in shipped("method") else "lusd"
        raise UserError(f"variant {name} has no base: write {name}: METHOD (such as {name}: {example}), or base: METHOD for all")
    return Variant(name, method, tuple(f"{key}={as_text(value)}" for key, value in keys.items()))


def _axes(grid: Any) -> dict[str, dict[str, Any]]:
    """Values by label, by key."""
    if not grid or not isinstance(grid, dict):
        raise UserError(f"grid is empty; a sweep is {FORMS}" if not grid else f"grid is {{KEY: [VALUE, ...]}}, got {grid!r}")
    return {str(key): _labelled(str(key), values) for key, values in grid.items()}


def _labelled(key: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict | list):
        raise UserError(f"grid: {key} needs a list of values or {{LABEL: VALUE}}, got {values!r}")
    if not values:
        raise UserError(f"grid: {key} has no values")
    if isinstance(values, dict):
        return {_name(label): value for label, value in values.items()}
    labels = [as_text(value) for value in values]
    _refuse_twice(labels, f"grid: {key} has {{}} twice")
    return dict(zip(labels, values, strict=True))


def _points(axes: Mapping[str, Mapping[str, Any]]) -> Iterable[tuple[str, dict[str, Any]]]:
    names = list(_short(axes))
    for point in product(*(values.items() for values in axes.values())):
        name = ",".join(f"{short}={label}" for short, (label, _) in zip(names, point, strict=True))
        yield name, {key: value for key, (_, value) in zip(axes, point, strict=True)}


def _short(axes: Mapping[str, Any]) -> dict[str, Any]:
    """The axes under the last parts of their keys, where these differ."""
    last = Counter(key.rpartition(".")[2] for key in axes)
    return {key if last[key.rpartition(".")[2]] > 1 else key.rpartition(".")[2]: values for key, values in axes.items()}


def _name(key: Any) -> str:
    if key is None or isinstance(key, bool):
        raise UserError(f"a name was read as {as_text(key)}; yaml does that to on, off, yes, no, null and the like: use quotes")
    return str(key)


def _check_names(names: list[str]) -> None:
    _refuse_twice(names, "two variants are called {}")
    for name in names:
        if not re.fullmatch(r"\w[\w.,=+-]*", name) or name in TABLES:
            raise UserError(
                f"variant {name!r} cannot name a folder: letters, digits and _ . , = + - can, {' and '.join(TABLES)} are taken; "
                "values of a grid get names by {LABEL: VALUE}"
            )


def _refuse_twice(names: list[str], message: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(message.format(twice[0]))
