"""Components of a file or module of one's own (--plugin): the user's own act, never a yaml's or a run card's."""

import sys
from hashlib import sha256
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from .errors import UserError

_digests: dict[str, str] = {}  # of the files of loaded plugins, by the name that each was given


def load_plugin(name: str) -> None:
    """Imports a file (my_loss.py) or a module (my_package.losses), whose import registers components; a second time is nothing.

    Raises UserError if it does not exist, raises an error of its own, or has changed since it was loaded.
    """
    file = Path(name) if name.endswith(".py") else None
    if file is not None and not file.is_file():
        raise UserError(f"plugin {name} does not exist")
    if file is not None and name in _digests:
        if _digest(file) != _digests[name]:
            raise UserError(f"plugin {name} has changed since it was loaded; start a new process")
        return
    try:
        module = import_module(name) if file is None else _import_file(file)
    except Exception as error:
        raise UserError(f"plugin {name} cannot be loaded: {type(error).__name__}: {error}") from error
    if module.__file__ is not None:
        _digests[name] = _digest(Path(module.__file__))


def loaded_plugins() -> dict[str, str]:
    """The sha256 of the file of each loaded plugin, by its name, as run cards record them."""
    return dict(_digests)


def _import_file(file: Path) -> ModuleType:
    name = f"sdist_plugin_{file.stem}"
    spec = spec_from_file_location(name, file.resolve())
    module = module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def _digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()
