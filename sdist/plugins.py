"""Components of a file or module of one's own (--plugin): the user's own act, never a yaml's or a run card's."""

import os
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from .errors import UserError
from .files.digest import file_digest
from .registry import SLOTS, all_or_nothing
from .spelling import escaped

_loaded: dict[str, str] = {}  # the absolute path of a file, or a module's name -> sha256 of the file
_contents: dict[str, tuple[str, frozenset[type]]] = {}  # of each: the name of its module, and the classes that it registered


def load_plugin(name: str) -> None:
    """Imports a file (my_loss.py) or a module (my_package.losses), whose import registers components; a second time is nothing.

    Raises UserError if it does not exist, raises an error of its own, has changed since it was loaded, or bears the file name of
    another one: run cards tell plugins by their file names.
    """
    if (shown := escaped(name)) != name:
        raise UserError(f"plugin {shown}: its path is not UTF-8; rename it")
    file = Path(name).resolve() if name.endswith(".py") else None
    if file is not None and not file.is_file():
        raise UserError(f"plugin {name} does not exist")
    key = name if file is None else str(file)
    if file is not None and key in _loaded:
        if file_digest(file) != _loaded[key]:
            raise UserError(f"plugin {name} has changed since it was loaded; start a new process")
        return
    if file is not None and (other := next((path for path in _loaded if Path(path).name == file.name), None)):
        raise UserError(f"plugin {name} has the file name of {other}, which is loaded; rename one of them")
    for registry in SLOTS.values():
        registry.names()  # those that are there come first: a plugin that takes a name is the one to blame
    before = _registered()
    try:
        with all_or_nothing():
            module = import_module(name) if file is None else _import_file(file)
    except (Exception, SystemExit) as error:
        raise UserError(f"plugin {name} cannot be loaded: {type(error).__name__}: {error}") from error
    _loaded[key] = "" if module.__file__ is None else file_digest(Path(module.__file__))
    _contents[key] = module.__name__, frozenset(_registered() - before)


def load_plugins(names: Iterable[str | os.PathLike[str]]) -> None:
    for name in names:
        load_plugin(os.fspath(name))


def loaded_plugins() -> dict[str, str]:
    """The sha256 of the file of each loaded plugin, by its absolute path or its module's name."""
    return dict(_loaded)


def plugins_of(classes: Iterable[type]) -> dict[str, str]:
    """Of the loaded plugins, those that one of the classes or of their bases comes from, as `loaded_plugins` gives them."""
    bases = {base for cls in classes for base in cls.__mro__}
    homes = {base.__module__ for base in bases}
    return {
        name: digest
        for name, digest in _loaded.items()
        if bases & _contents[name][1] or any(f"{home}.".startswith(f"{_contents[name][0]}.") for home in homes)
    }


def _registered() -> set[type]:
    return {cls for registry in SLOTS.values() for cls in registry.registered().values()}


def check_recorded(recorded: Mapping[str, str], what: str) -> list[str]:
    """Plugins that were recorded with other content than is loaded. Raises UserError for one that is not loaded at all."""
    loaded = {Path(name).name: digest for name, digest in _loaded.items()}
    missing = [name for name in recorded if Path(name).name not in loaded]
    if missing:
        raise UserError(f"{what} was made with {', '.join(f'--plugin {name}' for name in missing)}; give the same here")
    return [name for name, digest in recorded.items() if loaded[Path(name).name] != digest]


def _import_file(file: Path) -> ModuleType:
    name = f"sdist_plugin_{file.stem}"
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"Python cannot import {file}")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
