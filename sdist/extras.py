"""Which packages are installed: those of an extra are asked for before the work begins."""

from importlib.util import find_spec

from .errors import UserError


def need(command: str, *packages: str, extra: str = "evaluate") -> None:
    """Raises UserError, with what to install, if one of the packages of that extra is not there."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(f"sdist {command} needs {missing[0]}: pip install 'sdist[{extra}]'")


def installed_version(package: str) -> str | None:
    """None where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
