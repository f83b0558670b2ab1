"""Builds settings and components: defaults < yaml < command line. Yaml can name registered components only."""

from collections.abc import Mapping, Sequence
from dataclasses import Field, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from ..errors import UserError, unknown
from ..models.catalogue import Scale, find_model
from ..plugins import load_plugins
from ..registry import EDITORS, SLOTS, Registry, slot_defaults
from .methods import find_yaml, yaml_folder
from .settings import FLAT, Settings, common_keys
from .texts import check_texts, quoted, quoted_override
from .yaml_files import check_yaml, read_yaml

T = TypeVar("T")
ALIAS = "baseline"  # of the key `editor`, in yamls and run cards of before


# --- layers -------------------------------------------------------------------------------------------------------------


def load_settings(method: str, overrides: Sequence[str] = (), /, **values: Any) -> Settings:
    """Settings of a method (a name in experiments/methods or a yaml file) with "key=value" overrides; `values` win over both."""
    path = find_yaml("method", method)
    try:
        command_line = OmegaConf.create()
        for override in overrides:  # one by one: what follows a component's name are fields of it
            command_line = _spelled(_merged(command_line, OmegaConf.from_dotlist([_checked(override)])))
        data = _layered([*_with_bases(path), command_line, OmegaConf.create(values)])
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, TypeError) as error:  # TypeError: a list where a mapping is
        raise UserError(f"{path.name} or --set cannot be read: {_line(error)}") from error
    return resolve(data, path.name)


def settings_of(method: str, settings: Mapping[str, Any] | Sequence[str], values: Mapping[str, Any]) -> Settings:
    """A method's settings with further ones, as a mapping or as "key=value", and with values that win over both."""
    if not isinstance(model := values.get("model", ""), str | Path):
        kind = type(model).__name__
        raise UserError(
            f"model is a name, hub id or folder, got {kind}; ScoreDistillationPipeline.from_pipe(pipe) takes a pipeline"
        )
    if isinstance(settings, str):
        raise UserError(f'settings is a mapping or a list such as ["optimizer.lr=0.1"], got {settings!r}')
    if not isinstance(settings, Mapping):
        return load_settings(method, list(settings), **values)
    merged = OmegaConf.create()
    try:
        for key, value in {**settings, **values}.items():
            if is_dataclass(value):
                kind = value if isinstance(value, type) else type(value)
                raise UserError(f"settings: {key} is a {kind.__name__}; give its name, or a mapping such as {{'name': ...}}")
            OmegaConf.update(merged, key, value)
            _spelled(merged)
    except OmegaConfBaseException as error:
        raise UserError(f"settings cannot be read: {str(error).splitlines()[0]}") from None
    return load_settings(method, **_plain(merged))


def _with_bases(path: Path, above: tuple[Path, ...] = ()) -> list[DictConfig]:
    """The yaml, after the methods that its `base` and theirs name."""
    if path.resolve() in above:
        raise UserError(f"{path.name}: base names a method whose own base is this one: {' > '.join(p.stem for p in above)}")
    layer = read_yaml(path, quoted)
    if not isinstance(layer, DictConfig):
        raise UserError(f"{path.name}: a method is a mapping of settings, see {yaml_folder('method')}")
    base = layer.pop("base", None)
    below = [] if base is None else _with_bases(find_yaml("method", str(base)), (*above, path.resolve()))
    return [*below, layer]


def _layered(layers: Sequence[DictConfig]) -> DictConfig:
    """Later layers win; a slot that gets another name loses the fields of the component that it had."""
    data = _spelled(layers[0])
    for layer in map(_spelled, layers[1:]):
        for slot, default in _slots().items():
            before, name = (_name(node.get(slot)) for node in (data, layer))
            if name is not None and name != (before or default):
                data.pop(slot, None)
        data = _merged(data, layer)
    return data


def _spelled(layer: DictConfig) -> DictConfig:
    """A layer with short forms written out."""
    if ALIAS in layer:
        layer["editor"] = layer.pop(ALIAS)
    for key in (*_slots(), "optimizer"):
        if isinstance(layer.get(key), str):
            layer[key] = {"name": layer[key]}
    return layer


def _slots() -> dict[str, str | None]:
    """The keys that choose a component, and which one where none is named."""
    return {"editor": FLAT, **slot_defaults(EDITORS.get(FLAT))}


def _name(component: Any) -> Any:
    return component.get("name") if isinstance(component, DictConfig) else component


# --- settings -----------------------------------------------------------------------------------------------------------


def resolve(data: Any, where: str) -> Settings:
    """Settings with every component built. Raises a UserError that names the key, the file and what is allowed."""
    config = _spelled(OmegaConf.create(cast(Any, data)) if isinstance(data, Mapping) else data)
    editor = _editor(config.get("editor", FLAT), where)
    _check_keys(config, editor, where)
    try:
        plain = _plain(_merged(_defaults(config, editor, where), config), resolve=True)
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where}: {_line(error)}") from error
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
    name = _name(value)
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
        more = ", ".join(f"editor.{name}" for name in _field_names(EDITORS.get(editor)))
        raise UserError(f"{where}: {', '.join(foreign)}: no setting of the editor {editor}; it has {', '.join(allowed)}, {more}")


def _defaults(config: DictConfig, editor: str, where: str) -> DictConfig:
    """What ${...} may refer to: the defaults of every key, and the scale of the model."""
    defaults = _merged(_structure(Settings), _structure(EDITORS.get(FLAT)) if editor == FLAT else {})
    scale = config.get("scale", OmegaConf.create())
    if not isinstance(scale, DictConfig):
        raise UserError(f"{where}: scale is a mapping {{name: value}}, got {scale!r}")
    model = find_model(str(config.get("model", defaults.model)))
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
    values = {f.name: _value(f.metadata, merged[f.name], f.name, where) for f in _fields(cls)}
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except Exception as error:  # of a component of one's own
        raise UserError(f"{where}: {type(error).__name__}: {error}") from error


def _value(metadata: Mapping[str, str], node: Any, key: str, where: str) -> Any:
    if "slot" in metadata:
        value = _container(node)
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
        return _merged(OmegaConf.structured(cls), data)
    except ConfigKeyError as error:
        owner = error.object_type if is_dataclass(error.object_type) else cls
        above, _, key = str(error.full_key).rpartition(".")
        place = f"{above} of {where}" if above else where
        raise unknown("key", key, _field_names(owner), place) from None
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        full = getattr(error, "full_key", None)
        raise UserError(f"{where}: {full}: {_line(error)}" if full else f"{where}: {_line(error)}") from None


def _object(node: Any, where: str) -> Any:
    try:
        return OmegaConf.to_object(node)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {error.full_key}: {_line(error)}") from None


def _merged(*layers: Any) -> DictConfig:
    """Of mappings; later ones win."""
    return cast(DictConfig, OmegaConf.merge(*layers))


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
