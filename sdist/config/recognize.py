"""Which shipped method settings are of, for messages: run cards hold the settings alone."""

import json
from collections.abc import Mapping
from typing import Any

from .build import load_settings
from .methods import shipped
from .settings import FLAT, common_keys


def method_of(plain: Mapping[str, Any]) -> str:
    """The shipped method whose own values these settings have, whatever their steps and what all editors share; empty if none."""
    wanted = _own(plain)
    return next((name for name in shipped("method") if _own(load_settings(name).plain()) == wanted), "")


def _own(plain: Mapping[str, Any]) -> str:
    shared = {*common_keys(FLAT), "steps"} - {"editor"}
    return json.dumps({key: value for key, value in plain.items() if key not in shared}, sort_keys=True)
