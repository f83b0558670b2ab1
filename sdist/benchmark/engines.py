"""The network alone by each engine that there is: rows per second."""

import statistics
from contextlib import suppress

from ..edits.request import Prepared
from ..errors import UserError
from ..models.base import Backbone
from ..models.compiled import Choice, engine_for
from .bare import bare_rows_per_second

ROWS = (2, 8, 16)  # of a call: one draw of an image, a few, a queue's


def engines_for(model: Backbone, chosen: Choice) -> list[Choice]:
    """torch alone, the chosen one, and OpenVINO where it can be had."""
    found: list[Choice] = ["none", chosen]
    with suppress(UserError):
        engine_for("openvino", model.device.type, model.dtype)
        found.append("openvino")
    return list(dict.fromkeys(found))


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
