"""Configuration: defaults < yaml < command line. Yaml can name registered components only; unknown keys raise."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from ..editors.base import SHARED
from ..errors import UserError, unknown
from ..models.catalogue import Scale, find_model
from ..registry import REGULARIZERS, Registry
from .methods import find_yaml, yaml_folder
from .settings import SLOTS, Settings
from .yaml_files import check_yaml, read_yaml

T = TypeVar("T")


def load_settings(method: str, overrides: Sequence[str] = (), /, **values: Any) -> Settings:
    """Settings of a method (a name in experiments/ or a yaml file) with "key=value" overrides; `values` win over both."""
    path = find_yaml("method", method)
    try:
        command_line = OmegaConf.from_dotlist([_checked(o) for o in overrides])
        data = _layered([*_with_base(path), command_line, OmegaConf.create(values)])
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, TypeError) as error:  # TypeError: a list where a mapping is
        raise UserError(f"{path.name} or --set cannot be read: {_line(error)}") from error
    return resolve(data, path.name)


def settings_of(method: str, settings: Mapping[str, Any] | Sequence[str], values: Mapping[str, Any]) -> Settings:
    """A method's settings with further ones, as a mapping or as "key=value", and with values that win over both."""
    if isinstance(settings, str):
        raise UserError(f'settings is a mapping or a list such as ["optimizer.lr=0.1"], got {settings!r}')
    if not isinstance(settings, Mapping):
        return load_settings(method, list(settings), **values)
    merged = OmegaConf.create()
    try:
        for key, value in {**settings, **values}.items():
            OmegaConf.update(merged, key, value)
    except OmegaConfBaseException as error:
        raise UserError(f"settings cannot be read: {str(error).splitlines()[0]}") from None
    return load_settings(method, **OmegaConf.to_container(merged))  # type: ignore[arg-type]


def _with_base(path: Path) -> list[DictConfig]:
    """The yaml, after the method that its `base` names, if it has one."""
    layer = read_yaml(path)
    if not isinstance(layer, DictConfig):
        raise UserError(f"{path.name}: a method is a mapping of settings, see {yaml_folder('method')}")
    base = layer.pop("base", None)
    if base is None:
        return [layer]
    below = read_yaml(find_yaml("method", str(base)))
    if "base" in below:
        raise UserError(f"{path.name}: its base {base} has a base itself; one level is allowed")
    return [below, layer]  # type: ignore[list-item]


def _layered(layers: Sequence[DictConfig]) -> DictConfig:
    """Later layers win; a slot that gets another name loses the fields of the component that it had."""
    for layer in layers:
        if isinstance(layer.get("optimizer"), str):  # a name alone, as slots allow; the learning rate stays the method's
            layer["optimizer"] = {"name": layer["optimizer"]}
    data = layers[0]
    for layer in layers[1:]:
        for slot in SLOTS:
            names = [_name(node.get(slot)) for node in (data, layer)]
            if names[1] is not None and names[0] != names[1]:
                data.pop(slot, None)
        data = OmegaConf.merge(data, layer)  # type: ignore[assignment]
    return data


def _name(component: Any) -> Any:
    return component.get("name") if isinstance(component, DictConfig) else component


def resolve(data: Any, where: str) -> Settings:
    """Settings with every component built; UserError names the key, the file and what is allowed."""
    merged = _merge(Settings, data, where)
    try:
        for key in ("regularizers", "scale"):
            if not isinstance(merged[key], DictConfig):
                raise UserError(f"{where}: {key} is a mapping {{name: value}}, got {merged[key]!r}")
        model = find_model(str(merged.model))
        merged.scale = OmegaConf.structured(_merge(Scale, {**asdict(model.scale), **merged.scale}, f"scale in {where}"))
        plain = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {_line(error)}") from error
    settings: Settings = _object(merged, where)
    for slot, registry in SLOTS.items():
        setattr(settings, slot, _component(registry, plain[slot], where))  # type: ignore[index,call-overload]
    _check(settings, data, where)
    named = plain["regularizers"] or {}  # type: ignore[index,call-overload]
    if not isinstance(named, dict) or not all(own is None or isinstance(own, dict) for own in named.values()):
        raise UserError(f"{where}: regularizers is a mapping {{name: {{field: value}}}}, null switches one off; got {named!r}")
    chosen = {name: {"name": name, **own} for name, own in named.items() if own is not None}
    return replace(settings, regularizers={n: _component(REGULARIZERS, c, where) for n, c in chosen.items()})


def _check(settings: Settings, given: Iterable[str], where: str) -> None:
    if settings.loss is None or settings.gamma is None:
        raise UserError(f"{where}: loss and gamma cannot be null")
    if settings.steps < 1:
        raise UserError(f"{where}: steps must be at least 1, got {settings.steps}")
    if settings.baseline is not None and (foreign := [key for key in given if key not in SHARED]):
        own = ", ".join(f"baseline.{f.name}" for f in fields(settings.baseline))
        raise UserError(f"{where}: {', '.join(foreign)}: no setting of a baseline; it has {', '.join(SHARED[:-1])}, {own}")


def _component(registry: Registry[T], value: Any, where: str) -> T | None:
    """A component from its name, or from a mapping with its name and some of its fields."""
    if value is None:
        return None
    fields_ = {"name": value} if isinstance(value, str) else value
    if not isinstance(fields_, Mapping) or not isinstance(fields_.get("name"), str):
        raise UserError(f"{where}: {registry.slot} needs a name, got {value!r}: have {', '.join(registry.names())}")
    try:
        cls = registry.get(fields_["name"])
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    given = {k: v for k, v in fields_.items() if k != "name"}
    return build(cls, given, f"{registry.slot} {fields_['name']} in {where}")


def build(cls: type[T], given: Mapping[str, Any], where: str) -> T:
    """An object of a dataclass from plain data; UserError names the key, `where` it stands and what is allowed."""
    return _object(_merge(cls, given, where), where)


def _merge(cls: type, given: Any, where: str) -> DictConfig:
    try:
        return OmegaConf.merge(OmegaConf.structured(cls), given)  # type: ignore[return-value]
    except ConfigKeyError as error:
        owner = error.object_type if is_dataclass(error.object_type) else cls
        above, _, key = str(error.full_key).rpartition(".")
        place = f"{above} of {where}" if above else where
        raise unknown("key", key, [f.name for f in fields(owner)], place) from None  # type: ignore[arg-type]
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        key = getattr(error, "full_key", None)
        raise UserError(f"{where}: {key}: {_line(error)}" if key else f"{where}: {_line(error)}") from None


def _object(node: DictConfig, where: str) -> Any:
    try:
        return OmegaConf.to_object(node)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {error.full_key}: {_line(error)}") from None


def _checked(override: str) -> str:
    if "=" not in override or override.startswith("="):
        raise UserError(f"--set needs key=value, got {override!r}")
    check_yaml(override.partition("=")[2])
    return override


def _line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split())
