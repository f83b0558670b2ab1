"""Settings that are text, which stay so although yaml reads no as false and 007 as 7."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Any, Literal, Optional

import yaml

from ..errors import UserError
from ..registry import EDITORS, SLOTS
from .settings import FLAT, Settings

Kind = Literal["", "text", "text or null"]
KINDS: dict[Any, Kind] = {str: "text", "str": "text", Optional[str]: "text or null", "str | None": "text or null"}  # noqa: UP045
ANCHOR = re.compile(r"&\S+\s+")  # of a value that is used again below
NULL = ("null", "Null", "NULL", "~")


def kind_of(keys: Sequence[str]) -> Kind:
    """Whether a setting is text, by its keys in a method's yaml; in a slot it is if one of its components says so."""
    tops = [Settings] if keys[0] == "editor" else [Settings, EDITORS.get(FLAT)]
    return next((kind for top in tops if (kind := _kind_in(top, keys))), "")


def _kind_in(cls: Any, keys: Sequence[str]) -> Kind:
    field = next((f for f in fields(cls) if keys and f.name == keys[0]), None)
    if field is None:
        return ""
    if len(keys) == 1:
        return KINDS.get(field.type, "")
    return next((kind for part, rest in _inside(field, keys[1:]) if (kind := _kind_in(part, rest))), "")


def _inside(field: Field, keys: Sequence[str]) -> Iterator[tuple[Any, Sequence[str]]]:
    """The classes whose fields stand below a field, with the keys that are theirs."""
    if is_dataclass(field.type):
        yield field.type, keys
    elif "slots" in field.metadata:
        registry = SLOTS[field.metadata["slots"]]
        if keys[0] in registry.names():
            yield registry.get(keys[0]), keys[1:]
    elif "slot" in field.metadata:
        registry = SLOTS[field.metadata["slot"]]
        yield from ((registry.get(name), keys) for name in registry.names())


def quoted_override(key: str, value: str) -> str:
    """The value of "key=value" as yaml to read: text in quotes, unless it is already."""
    kind = kind_of(key.split("."))
    if not kind or _is_quoted(value) or (kind == "text or null" and value in NULL):
        return value
    return _in_quotes(value)


def _is_quoted(value: str) -> bool:
    if not value.lstrip().startswith(("'", '"')):
        return False
    try:
        return isinstance(yaml.compose(value, Loader=yaml.SafeLoader), yaml.ScalarNode)
    except yaml.YAMLError:
        return False


def _in_quotes(text: str) -> str:
    return yaml.safe_dump(text, default_style='"', width=10 * len(text) + 100).strip()


def quoted(text: str, key: str = "", sweep: bool = False) -> str:
    """The yaml with quotes around what stands plain where text is wanted.

    It is that of the setting `key`, of a method (""), or of a sweep. Raises UserError for a null there.
    """
    edits: dict[int, tuple[int, str]] = {}
    for scalar, path, is_key in _plain_scalars(yaml.compose(text, Loader=yaml.SafeLoader), (key,) if key else (), set()):
        setting = _setting(path) if sweep else path
        kind = kind_of(".".join(setting).split(".")) if setting else ""
        if kind and (scalar.value not in NULL or is_key):
            edits[scalar.start_mark.index] = scalar.end_mark.index, f"{'' if is_key else ' '}{_in_quotes(scalar.value)}"
        elif kind == "text":
            raise UserError(f'{".".join(setting)} is text, got null; write "" for none')
    for start, (end, new) in sorted(edits.items(), reverse=True):
        anchor = ANCHOR.match(text, start, end)
        text = text[:start] + (f" {anchor[0].strip()} " if anchor else "") + new + text[end:]
    return text


Scalar = tuple[yaml.ScalarNode, tuple[str, ...], bool]


def _plain_scalars(node: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[Scalar]:
    """Scalars without quotes, the keys that lead to them, and whether they are the last of these; what aliases repeat comes once.

    A key may need quotes too: `null` is that of the null prompt.
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode) and node.style is None:
        yield node, path, False
    for name, value in _entries(node):
        inside = (*path, name.value) if isinstance(name, yaml.ScalarNode) else path
        if isinstance(name, yaml.ScalarNode) and name.style is None:
            yield name, inside, True
        yield from _plain_scalars(value, inside, seen)


def _entries(node: Any) -> list[tuple[yaml.Node | None, yaml.Node]]:
    """What a mapping or a list holds."""
    if isinstance(node, yaml.SequenceNode):
        return [(None, item) for item in node.value]
    return node.value if isinstance(node, yaml.MappingNode) else []


def _setting(path: tuple[str, ...]) -> tuple[str, ...]:
    """The setting that a value of a sweep is for, in variants: {NAME: {KEY: VALUE}}, grid: {KEY: [VALUE] or {LABEL: VALUE}}, or
    search: {space: as a grid}.
    """
    return {"variants": path[2:], "grid": path[1:2], "search": path[2:3]}.get(path[0], ()) if path else ()


def check_texts(cls: Any, given: Mapping[str, Any], where: str) -> None:
    """Raises UserError for a value that is no text where a field is one."""
    for field in fields(cls):
        value = given.get(field.name, "")
        if is_dataclass(field.type) and isinstance(value, Mapping):
            check_texts(field.type, value, f"{field.name} in {where}")
        kind = KINDS.get(field.type)
        if kind and not isinstance(value, str) and not (value is None and kind == "text or null"):
            raise UserError(f"{where}: {field.name} is text, got {value!r}")
