"""What is wrong with a value of a setting: the key, what it may be by the annotation of its field, and what was given."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any

from omegaconf import Container, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError
from ..errors.arguments import MOST, taken


def wrong_value(cls: Any, data: Mapping[str, Any], where: str) -> UserError | None:
    """An error for the first value of a dataclass's fields that OmegaConf does not take; None if it takes each by itself."""
    for field, value in _known(cls, data):
        if is_dataclass(field.type) and isinstance(value, Mapping):
            inside = wrong_value(field.type, value, f"{field.name} in {where}")
            if inside is not None:
                return inside
        elif not _is_taken(cls, field.name, value):
            return UserError(f"{where}: {field.name} must be {_allowed(field)}, got {_plain_text(value)}")
    return None


def check_finite(cls: Any, data: Mapping[str, Any], where: str) -> None:
    """Raises UserError for a number that is none, or infinite."""
    for field, value in _known(cls, data):
        if is_dataclass(field.type) and isinstance(value, Mapping):
            check_finite(field.type, value, f"{field.name} in {where}")
        elif not {"slot", "slots"} & field.metadata.keys() and not all(math.isfinite(number) for number in _numbers(value)):
            raise UserError(f"{where}: {field.name} must be finite, got {_plain_text(value)}")


def _known(cls: Any, data: Mapping[str, Any]) -> Iterator[tuple[Field, Any]]:
    """Each field of which there is a value, which may be a reference such as ${scale.step}."""
    for field in fields(cls):
        if field.name in data:
            raw = data._get_node(field.name) if isinstance(data, Container) else data[field.name]
            yield field, raw


def _is_taken(cls: Any, name: str, value: Any) -> bool:
    try:
        OmegaConf.merge(OmegaConf.structured(cls), {name: value})
    except (OmegaConfBaseException, TypeError, ValueError):
        return False
    return True


def _allowed(field: Field) -> str:
    if "slots" in field.metadata:
        return "a mapping {name: {field: value}}, null switches one off"
    if is_dataclass(field.type):
        hint = "; the logger itself is chosen by --log" if field.name == "log" else ""
        return f"a mapping of {', '.join(inner.name for inner in fields(field.type))}{hint}"
    return taken(field.type)


def _numbers(value: Any) -> Iterator[float]:
    """The floats that a value holds."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _numbers(inner)


def _plain_text(value: Any) -> str:
    plain: Any = OmegaConf.to_container(value) if isinstance(value, Container) and OmegaConf.is_config(value) else value
    plain = plain._value() if hasattr(plain, "_value") else plain
    text = "null" if plain is None else repr(plain)
    return text if len(text) <= MOST else f"{text[: MOST - 3]}..."
