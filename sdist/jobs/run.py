"""`sdist run`, from Python too."""

import logging
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from ..config.build import settings_of
from ..errors.arguments import check_options, checked
from ..extras import need
from ..files.storage import storage_path
from ..models.catalogue import default_method
from ..plugins import load_plugins
from .dry_run import dry_run
from .options import RunOptions
from .problems import Report
from .summary import RunResult

log = logging.getLogger("sdist")


@checked("model", "settings")
def run(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    method: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    steps: int | None = None,
    size: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    compile: str | None = None,
    keep_background: bool | None = None,
    output_size: str | None = None,
    crop: str | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    plugins: Sequence[str | os.PathLike[str]] = (),
    **options: Any,
) -> RunResult:
    """Edits every pair of `input` into `output` and skips what is there, as `sdist run` with the same options does.

    `input` is a folder with index.csv, or FORMAT:DIR; `output` a folder or a URL of fsspec. `seed` is the first seed; `model` to
    `plugins` are as for `sdist.edit`. `options` are those of sdist/jobs/options.py: seeds, parallel, log, overwrite, limit,
    shard, retry, changed, dry_run, devices, engine, workers.

    A pair that cannot be edited does not end the run: it is an error of the logger "sdist" when it is found, and one of the
    result's `problems`. `devices` starts processes that import the main module, so a script calls this under
    `if __name__ == "__main__":`. Raises UserError for bad input, and for whatever ends `sdist run` with an error.
    """
    values = {
        "model": model, "seed": seed, "steps": steps, "size": size, "device": device, "precision": precision, "compile": compile,
        "keep_background": keep_background, "output_size": output_size, "crop": crop,
    }  # fmt: skip
    check_options(options, RunOptions, run)
    load_plugins(plugins)
    method = default_method(model, settings) if method is None else method
    chosen = settings_of(method, settings, values)
    folder = storage_path(os.fspath(output))
    run_options = RunOptions(method=os.fspath(method), settings=chosen, output=folder, input=os.fspath(input), **options)
    return make(run_options, log.error)


def make(options: RunOptions, show: Report) -> RunResult:
    """Has a run made by the engine that the options name; `show` gets each problem when it is found."""
    if options.engine == "ray":
        need("run --engine ray", "ray", extra="ray")
    if options.dry_run:
        return dry_run(options, show)
    engine = options.engine if options.devices is None else "devices"
    return import_module(f".engines.{engine}", __package__).make(options, show)
