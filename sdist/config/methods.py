"""Finds the yamls of methods and sweeps, by name or by path."""

from pathlib import Path
from typing import Literal

from ..errors import UserError, unknown
from ..files.helpers import is_helper

PACKAGE = Path(__file__).parent.parent


def yaml_folder(kind: Literal["method", "sweep"]) -> Path:
    """experiments/methods or experiments/sweeps, inside an installed package or beside it in a checkout."""
    experiments = next(p for p in (PACKAGE / "experiments", PACKAGE.parent / "experiments") if p.is_dir())
    return experiments / f"{kind}s"


def shipped(kind: Literal["method", "sweep"]) -> dict[str, Path]:
    """The yamls of experiments/methods or experiments/sweeps by name."""
    files = sorted(yaml_folder(kind).glob("*.yaml"))
    return {file.stem: file for file in files if not is_helper(Path(file.name))}


def find_yaml(kind: Literal["method", "sweep"], name: str) -> Path:
    """A yaml by its name in experiments/, or by its path. Raises a UserError that says what there is."""
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise UserError(f"{kind} file {name} does not exist")
        return Path(name)
    files = shipped(kind)
    if name not in files:
        raise unknown(kind, name, files, f"{yaml_folder(kind)}; a path to a yaml file works too")
    return files[name]
