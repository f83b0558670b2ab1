"""Which shipped method settings are of, for messages: run cards hold the settings alone."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from ..errors import UserError
from .build import load_settings
from .methods import shipped
from .settings import FLAT, common_keys


def method_of(plain: Mapping[str, Any]) -> str:
    """The shipped method whose values these settings have, whatever their steps and what all editors share; empty if none."""
    wanted = _own(plain)
    return next((name for name, own in _methods(plain.get("scale") or {}) if own == wanted), "")


def _methods(scale: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each with the values that it has on a model of that scale."""
    for name in shipped("method"):
        with suppress(UserError):  # of an editor that has no scale
            yield name, _own(load_settings(name, [f"scale.{key}={json.dumps(value)}" for key, value in scale.items()]).plain())


def _own(plain: Mapping[str, Any]) -> str:
    shared = {*common_keys(FLAT), "steps"} - {"editor"}
    return json.dumps({key: value for key, value in plain.items() if key not in shared}, sort_keys=True)
