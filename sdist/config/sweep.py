"""Sweeps: variants of methods in one yaml, written out, as the product of a grid, or drawn for a search.

A variant is a method and overrides as --set takes them, so that `sdist run --method ... --set ...` makes the same images.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..errors import UserError, unknown
from .axes import Axes, as_name, as_text, point, read_axes, refuse_twice, short_keys
from .methods import find_yaml, shipped
from .search import Search, read_search
from .texts import quoted
from .yaml_files import read_yaml

KINDS = ("variants", "grid", "search")  # of which a sweep has one
KEYS = ("base", *KINDS)
TABLES = ("evaluation", "comparison")  # folders beside those of the variants
FORMS = "variants: [METHOD, ...], variants: {NAME: METHOD or {KEY: VALUE}}, grid: {KEY: [VALUE, ...]}, or search: {...}"


@dataclass(frozen=True)
class Variant:
    """One method with overrides; `name` is that of its folder, its column and its runs."""

    name: str
    method: str
    overrides: tuple[str, ...] = ()  # "key=value"


@dataclass(frozen=True)
class Sweep:
    """Variants in their order; of a grid also the labels of each axis, of which the last one varies fastest; or a search."""

    name: str
    base: str | None
    variants: tuple[Variant, ...]
    axes: Mapping[str, tuple[str, ...]]
    search: Search | None = None  # that drew the variants and chooses among them


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


def _sweep(name: str, data: Any) -> Sweep:
    if not isinstance(data, dict):
        raise UserError(f"a sweep is a mapping: {FORMS}")
    for key in data:
        if key not in KEYS:
            raise unknown("key", str(key), KEYS)
    if sum(kind in data for kind in KINDS) != 1:
        raise UserError(f"needs one of {FORMS}")
    base, axes, search = data.get("base"), dict[str, tuple[str, ...]](), None
    if "grid" in data:
        grid = read_axes(data["grid"], "grid")
        entries = _points(grid)
        axes = {key: tuple(values) for key, values in zip(short_keys(grid), grid.values(), strict=True)}
    elif "search" in data:
        search, entries = read_search(data["search"])
    else:
        entries = _written(data["variants"])
    variants = tuple(_variant(name, entry, base) for name, entry in entries)
    _check_names([variant.name for variant in variants])
    return Sweep(name, base, variants, axes, search)


def _written(variants: Any) -> list[tuple[str, Any]]:
    """Names and entries of variants that are written out; a method's own name serves where none is given."""
    if not variants or not isinstance(variants, dict | list):
        raise UserError(f"variants is empty; a sweep is {FORMS}" if not variants else f"variants cannot be {variants!r}: {FORMS}")
    if isinstance(variants, dict):
        return [(as_name(name), {"base": entry} if isinstance(entry, str) else entry) for name, entry in variants.items()]
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


def _points(axes: Axes) -> list[tuple[str, dict[str, Any]]]:
    return [point(axes, labels) for labels in product(*axes.values())]


def _check_names(names: list[str]) -> None:
    refuse_twice(names, "two variants are called {}")
    for name in names:
        if not re.fullmatch(r"\w[\w.,=+-]*", name) or name in TABLES:
            raise UserError(
                f"variant {name!r} cannot name a folder: letters, digits and _ . , = + - can, {' and '.join(TABLES)} are taken; "
                "values of a grid or a space get names by {LABEL: VALUE}"
            )
