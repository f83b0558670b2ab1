"""The network alone by each engine that there is: rows per second."""

import statistics
from importlib.util import find_spec

import torch

from ..edits.request import Prepared
from ..models.base import Backbone
from ..models.compiled import Choice
from .bare import bare_rows_per_second

ROWS = (2, 8, 16)  # of a call: one draw of an image, a few, a queue's


def engines_for(model: Backbone, chosen: Choice) -> list[Choice]:
    """torch alone, the chosen one, and OpenVINO where it can be had."""
    fits = find_spec("openvino") is not None and model.device.type == "cpu" and model.dtype == torch.float32
    found: list[Choice] = ["none", chosen]
    return list(dict.fromkeys([*found, "openvino"] if fits else found))


def compare_engines(model: Backbone, prepared: Prepared, chosen: Choice, turns: int) -> dict[str, dict[str, float]]:
    """By engine and rows of a call, medians of turns in which all take part; a turn before them compiles."""
    before, forms = model.compiled, {}
    for name in engines_for(model, chosen):
        model.compile(name)
        forms[name] = model.compiled
    rates: dict[str, dict[str, list[float]]] = {name: {f"{rows} rows": [] for rows in ROWS} for name in forms}
    try:
        for turn in range(turns + 1):
            for name, model.compiled in forms.items():
                for rows in ROWS:
                    rate = bare_rows_per_second(model, prepared, rows)
                    rates[name][f"{rows} rows"] += [rate] if turn else []
    finally:
        model.compiled = before
    return {name: {rows: statistics.median(values) for rows, values in by_rows.items()} for name, by_rows in rates.items()}
