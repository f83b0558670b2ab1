"""The keys of a grid or of a space that is searched: each with its values by label, and what a point among them is called."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ..errors import UserError

Axes = Mapping[str, Mapping[str, Any]]  # values by label, by key


def as_text(value: Any) -> str:
    """A value on one line of yaml."""
    return yaml.safe_dump([value], default_flow_style=True, width=1_000_000).strip()[1:-1]


def as_name(key: Any) -> str:
    """A key that names something. Raises UserError for one that yaml took for something else than text or a number."""
    if key is None or isinstance(key, bool):
        raise UserError(f"a name was read as {as_text(key)}; yaml does that to on, off, yes, no, null and the like: use quotes")
    return str(key)


def read_axes(axes: Any, where: str) -> Axes:
    """{KEY: [VALUE, ...] or {LABEL: VALUE}}. Raises a UserError that begins with `where` for anything else."""
    if not axes:
        raise UserError(f"{where} is empty; it is {{KEY: [VALUE, ...]}}")
    if not isinstance(axes, dict):
        raise UserError(f"{where} is {{KEY: [VALUE, ...]}}, got {axes!r}")
    return {str(key): _labelled(f"{where}: {key}", values) for key, values in axes.items()}


def point(axes: Axes, labels: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The name of the point with these labels, one per axis, and its values by key."""
    name = ",".join(f"{short}={label}" for short, label in zip(short_keys(axes), labels, strict=True))
    return name, {key: values[label] for (key, values), label in zip(axes.items(), labels, strict=True)}


def short_keys(axes: Axes) -> list[str]:
    """The last parts of the keys where these differ, else the whole keys."""
    last = Counter(key.rpartition(".")[2] for key in axes)
    return [key if last[key.rpartition(".")[2]] > 1 else key.rpartition(".")[2] for key in axes]


def refuse_twice(names: Sequence[str], message: str) -> None:
    """Raises UserError with the message, whose {} is the first name that is there twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(message.format(twice[0]))


def _labelled(where: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict | list):
        raise UserError(f"{where} needs a list of values or {{LABEL: VALUE}}, got {values!r}")
    if not values:
        raise UserError(f"{where} has no values")
    if isinstance(values, dict):
        return {as_name(label): value for label, value in values.items()}
    labels = [as_text(value) for value in values]
    refuse_twice(labels, f"{where} has {{}} twice")
    return dict(zip(labels, values, strict=True))
