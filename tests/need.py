"""What a machine may lack: the tests that need it are skipped there, and fail where the environment variable CI is set."""

import os
import shutil
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skips a test, or the module that is being imported; with CI set, fails instead."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}; in CI nothing that tests need may be missing", pytrace=False)
    pytest.skip(what, allow_module_level=True)


def need(module: str) -> ModuleType:
    """The imported module."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        reason = str(error)
    missing(f"the tests need {module}: {reason}")


def need_program(*names: str) -> str:
    """The path of the first of these programs that is installed."""
    path = next(filter(None, map(shutil.which, names)), None)
    return path or missing(f"the tests need {' or '.join(names)}, which is not installed")
