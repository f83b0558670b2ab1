"""Builds settings and components: defaults < yaml < command line. Yaml can name registered components only."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import Field, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from ..errors import UserError, unknown
from ..errors.arguments import matches, native, shown
from ..models.catalogue import Scale, find_model
from ..plugins import load_plugins
from ..registry import EDITORS, SLOTS, Registry
from .kinds import check_finite, wrong_value
from .layers import kept_rate, layered, merged, name_in, overlaid, spelled, with_steps
from .methods import find_yaml, yaml_folder
from .settings import FLAT, Settings, common_keys
from .texts import check_texts, quoted, quoted_override
from .yaml_files import check_yaml, read_yaml

log = logging.getLogger("sdist")

T = TypeVar("T")


# --- layers -------------------------------------------------------------------------------------------------------------


class UnknownKeyError(UserError):
    """A key that a component does not have."""


class Override(NamedTuple):
    """One setting that was given beside the yaml, and what messages call it."""

    name: str
    layer: DictConfig


def load_settings(method: str, overrides: Sequence[str] = (), /, **values: Any) -> Settings:
    """Settings of a method (a name in experiments/methods or a yaml file) with "key=value" overrides; `values` win over both."""
    given = [_override(override, f"--set {override}") for override in overrides]
    return _load(method, [*given, *(_argument(key, value, _option(key, value)) for key, value in values.items())])


def settings_of(
    method: str | os.PathLike[str], settings: Mapping[str, Any] | Sequence[str], values: Mapping[str, Any]
) -> Settings:
    """A method's settings with further ones, as a mapping or as "key=value", and with values that win over both but for None."""
    values = {key: value for key, value in values.items() if value is not None}
    if not isinstance(model := values.get("model", ""), str | os.PathLike):
        kind = type(model).__name__
        raise UserError(
            f"model is a name, hub id or folder, got {kind}; ScoreDistillationPipeline.from_pipe(pipe) takes a pipeline"
        )
    if not matches(settings, Mapping | Sequence[str]):
        raise UserError(f'settings is a mapping or a list such as ["optimizer.lr=0.1"], got {shown(settings)}')
    if isinstance(settings, Mapping):
        if odd := [key for key in settings if not isinstance(key, str)]:
            raise UserError(f"a setting is named by text such as 'optimizer.lr', got {shown(odd[0])}")
        given = [_argument(key, value, f"settings {key!r}") for key, value in settings.items()]
    else:
        given = [_override(override, f"settings {override!r}") for override in settings]
    plain = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in values.items()}
    return _load(os.fspath(method), [*given, *(_argument(key, value, f"{key}={value!r}") for key, value in plain.items())])


def _option(key: str, value: Any) -> str:
    """A value as the command line's own option gives it."""
    option = f"--{key.replace('_', '-')}"
    return option if value is True else f"{option} {value}"


def _override(override: str, name: str) -> Override:
    try:
        return Override(name, OmegaConf.from_dotlist([_checked(override)]))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, TypeError) as error:
        raise UserError(f"{name} cannot be read: {_line(error)}") from error


def _argument(key: str, value: Any, name: str) -> Override:
    if is_dataclass(value):
        kind = value if isinstance(value, type) else type(value)
        raise UserError(f"settings: {key} is a {kind.__name__}; give its name, or a mapping such as {{'name': ...}}")
    layer = OmegaConf.create()
    try:
        OmegaConf.update(layer, key, native(value))
    except (OmegaConfBaseException, AttributeError, TypeError) as error:  # of keys that are no text
        raise UserError(f"settings cannot be read: {key}: {str(error).splitlines()[0]}") from None
    return Override(name, layer)


def _load(method: str, given: Sequence[Override]) -> Settings:
    path = find_yaml("method", method)
    layers = _with_bases(path)
    settings = _resolved(path.name, layers, given)
    optimizer = getattr(settings.editor, "optimizer", None)
    other = kept_rate([*layers, _together(given)], "SGD")
    if optimizer is not None and other is not None:
        text = "optimizer %s keeps the lr of %s (%g), whose steps have another size: give it its own, optimizer.lr"
        log.warning(text, optimizer.name, other, optimizer.lr)
    return settings


def _together(given: Sequence[Override]) -> DictConfig:
    """One by one: what follows a component's name are fields of it."""
    together = OmegaConf.create()
    for one in given:
        together = overlaid(together, spelled(one.layer))
    return together


def _resolved(yaml: str, layers: Sequence[DictConfig], given: Sequence[Override]) -> Settings:
    """The settings. An error is that of the first thing that was given with which there is one, else the yaml's."""
    where = given[-1].name if given else yaml
    try:
        together = _together(given)
        return resolve(with_steps(layered([*layers, together]), together), where)
    except UserError as error:
        if given:
            _resolved(yaml, layers, given[:-1])
        if given and isinstance(error, UnknownKeyError):  # of a component that may be the yaml's
            raise UserError(f"{error} (the method is {Path(yaml).stem})") from None
        raise
    except (YAMLError, OmegaConfBaseException, TypeError) as error:
        raise UserError(f"{where} cannot be read: {_line(error)}") from error


def _with_bases(path: Path, above: tuple[Path, ...] = ()) -> list[DictConfig]:
    """The yaml, after the methods that its `base` and theirs name."""
    if path.resolve() in above:
        raise UserError(f"{path.name}: base names a method whose own base is this one: {' > '.join(p.stem for p in above)}")
    layer = read_yaml(path, quoted)
    if not isinstance(layer, DictConfig):
        raise UserError(f"{path.name}: a method is a mapping of settings, see {yaml_folder('method')}")
    base = layer.pop("base", None)
    if not isinstance(base, (str, type(None))):
        raise UserError(f"{path.name}: base is the name or the yaml of one method, got {_container(base)!r}")
    below = [] if base is None else _with_bases(find_yaml("method", base), (*above, path.resolve()))
    return [*below, layer]


# --- settings -----------------------------------------------------------------------------------------------------------


def resolve(data: Any, where: str) -> Settings:
    """Settings with every component built. Raises a UserError that names the key, the file and what is allowed."""
    config = spelled(OmegaConf.create(cast(Any, data)) if isinstance(data, Mapping) else data)
    editor = _editor(config.get("editor", FLAT), where)
    _check_keys(config, editor, where)
    try:
        plain = _plain(merged(_defaults(config, editor, where), config), resolve=True)
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        owners = [Settings, EDITORS.get(FLAT)] if editor == FLAT else [Settings]
        wrong = next(filter(None, (wrong_value(owner, config, where) for owner in owners)), None)
        raise wrong or UserError(f"{where}: {_line(error)}") from None
    keys = [str(key) for key in config]
    flat = {key: plain.pop(key) for key in keys if editor == FLAT and key in _flat_keys()}
    if editor == FLAT and "editor" not in config:
        plain["editor"] = {"name": FLAT, **flat}
    wanted = {key: plain[key] for key in (*keys, "editor") if key in plain}
    return build(Settings, {**wanted, "scale": Scale(**plain["scale"])}, where)


def restore(plain: Mapping[str, Any], plugins: Sequence[str]) -> Settings:
    """Settings from plain data, with those plugins loaded."""
    load_plugins(plugins)
    return resolve(plain, "settings")


def _editor(value: Any, where: str) -> str:
    name = name_in(value)
    _class_of(EDITORS, name, value, where)
    return name


def _flat_keys() -> list[str]:
    return _field_names(EDITORS.get(FLAT))


def _check_keys(config: DictConfig, editor: str, where: str) -> None:
    """Raises UserError for a key that is neither common nor, where no editor is named, one of score distillation's."""
    allowed = [*common_keys(editor), *(_flat_keys() if "editor" not in config else [])]
    foreign = [str(key) for key in config if key not in allowed]
    for key in foreign:
        if key not in (*(f.name for f in fields(Settings)), *_flat_keys()):
            raise unknown("key", key, allowed, where)
    if foreign:
        own = [f"editor.{name}" for name in _field_names(EDITORS.get(editor))]
        called = [f"editor.{EDITORS.get(editor).steps_field if key == 'steps' else key}" for key in foreign]
        here = "".join(f"; its own is {key} (--set {key}=VALUE)" for key in called if key in own)
        ignored = EDITORS.get(editor).ignores.intersection(foreign)
        advice = "leave it out" if ignored else f"it has {', '.join([*allowed, *own])}"
        raise UserError(f"{where}: {', '.join(foreign)}: no setting of the editor {editor}{here}; {advice}")


def _defaults(config: DictConfig, editor: str, where: str) -> DictConfig:
    """What ${...} may refer to: the defaults of every key, and the scale of the model."""
    defaults = merged(_structure(Settings), _structure(EDITORS.get(FLAT)) if editor == FLAT else {})
    scale = config.get("scale", OmegaConf.create())
    if not isinstance(scale, DictConfig):
        raise UserError(f"{where}: scale is a mapping {{name: value}}, got {scale!r}")
    named = {key: config.get(key, defaults[key]) for key in ("model", "model_config")}
    check_texts(Settings, named, where)
    model = find_model(*named.values())
    defaults.scale = asdict(_object(_merge(Scale, {**asdict(model.scale), **scale}, f"scale in {where}"), where))
    return defaults


def _structure(cls: type) -> DictConfig:
    """The defaults of a dataclass as plain data, so that other keys may stand beside them."""
    return OmegaConf.create(_plain(OmegaConf.structured(cls)))


# --- components ---------------------------------------------------------------------------------------------------------


def build(cls: type[T], data: Mapping[str, Any], where: str) -> T:
    """An object of a dataclass from plain data, its slots filled.

    Raises a UserError that names the key, the place and what is allowed.
    """
    check_texts(cls, data, where)
    merged = _merge(cls, data, where)
    check_finite(cls, {key: value for key, value in _plain(merged).items() if key in data}, where)
    values = {f.name: _value(f.metadata, merged[f.name], f.name, where) for f in _fields(cls)}
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(_said_once(where, str(error))) from None
    except Exception as error:  # of a component of one's own
        raise UserError(f"{where}: {type(error).__name__}: {error}") from error


def _value(metadata: Mapping[str, str], node: Any, key: str, where: str) -> Any:
    if "slot" in metadata:
        value = _container(node)
        if value is None and metadata["default"] is not None:
            raise UserError(f"{where}: {key} cannot be null; without it, it is {metadata['default']}")
        return None if value is None else _component(SLOTS[metadata["slot"]], value, where, metadata["default"])
    if "slots" in metadata:
        return _components(SLOTS[metadata["slots"]], _container(node), key, where)
    return _object(node, where) if isinstance(node, Container) else node


def _component(registry: Registry[T], value: Any, where: str, default: str | None = None) -> T:
    """A component from its name, or from a mapping with some of its fields, and its name unless it is the default one."""
    entry = {"name": value} if isinstance(value, str) else value
    if isinstance(entry, Mapping) and default is not None:
        entry = {"name": default, **entry}
    cls = _class_of(registry, entry.get("name") if isinstance(entry, Mapping) else None, value, where)
    settings = {k: v for k, v in entry.items() if k != "name"}
    return build(cls, settings, where if entry["name"] == FLAT else f"{registry.slot} {entry['name']} in {where}")


def _class_of(registry: Registry[T], name: Any, value: Any, where: str) -> type[T]:
    """The class of that name, which is how `value` says which component it is."""
    if not isinstance(name, str):
        raise UserError(f"{where}: {registry.slot} needs a name, got {value!r}: have {', '.join(registry.names())}")
    try:
        return registry.get(name)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _components(registry: Registry[T], named: Any, key: str, where: str) -> dict[str, T]:
    if not isinstance(named, dict) or not all(component is None or isinstance(component, dict) for component in named.values()):
        raise UserError(f"{where}: {key} is a mapping {{name: {{field: value}}}}, null switches one off; got {named!r}")
    chosen = {name: {**component, "name": name} for name, component in named.items() if component is not None}
    return {name: _component(registry, component, where) for name, component in chosen.items()}


def _merge(cls: type, data: Any, where: str) -> DictConfig:
    try:
        return merged(OmegaConf.structured(cls), data)
    except ConfigKeyError as error:
        owner = error.object_type if is_dataclass(error.object_type) else cls
        above, _, key = str(error.full_key).rpartition(".")
        place = f"{above} of {where}" if above else where
        raise UnknownKeyError(str(unknown("key", key, _field_names(owner), place))) from None
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        full = getattr(error, "full_key", None)
        plain = UserError(f"{where}: {full}: {_line(error)}" if full else f"{where}: {_line(error)}")
        raise wrong_value(cls, data, where) or plain from None


def _said_once(where: str, message: str) -> str:
    """The message after its place, which components may name too: "loss combination: ..." in "loss combination in my.yaml"."""
    name, colon, rest = message.partition(": ")
    return f"{where}: {rest if colon and where.startswith(name) else message}"


def _object(node: Any, where: str) -> Any:
    try:
        return OmegaConf.to_object(node)
    except UserError as error:
        raise UserError(_said_once(where, str(error))) from None
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {error.full_key}: {_line(error)}") from None


def _plain(config: DictConfig, resolve: bool = False) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=resolve))


def _fields(cls: Any) -> tuple[Field, ...]:
    """Of a dataclass."""
    return fields(cls)


def _field_names(cls: Any) -> list[str]:
    return [f.name for f in fields(cls)]


def _container(node: Any) -> Any:
    return OmegaConf.to_container(node) if isinstance(node, Container) else node


def _checked(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set needs key=value, got {override!r}")
    value = quoted_override(key, value)
    check_yaml(value)
    return f"{key}={quoted(value, key)}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split())
