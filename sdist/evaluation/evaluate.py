"""`sdist evaluate`, from Python too."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors.arguments import check_options, checked
from ..extras import need

if TYPE_CHECKING:
    from .evaluator import EvaluationResult


log = logging.getLogger("sdist")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What scores results: networks as ids on the hub or folders, and how."""

    clip: str | None = "openai/clip-vit-base-patch32"  # "tinyworld" is embedded; None: without metrics that need CLIP
    dino: str | None = None  # such as facebook/dino-vits16
    lpips: str | os.PathLike[str] | None = None  # file with the weights of LPIPS as safetensors
    cache: str | os.PathLike[str] | None = None  # folder that keeps embeddings
    device: str = "auto"
    profile: str = "clean"  # official: the published code's quirks; clean: without
    allow_missing: bool = False  # a missing result is undefined instead of an error
    overwrite: bool = False  # replace the scores of another evaluation


def default_output(results: Path) -> Path:
    """Of the scores of a folder of results."""
    return Path("evaluations") / results.resolve().name


@checked()
def evaluate(
    dataset: str,
    results: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    progress: Callable[[int], object] = lambda pairs: None,
    **options: Any,
) -> "EvaluationResult":
    """Scores the results KEY_seedN.png or KEY.png of a dataset, FORMAT:FOLDER, and writes tables and a page to `output`.

    Without `output` that is evaluations/NAME of the folder of results, so that `sdist compare evaluations/*` shows all of them.
    `options` are those of EvaluationOptions. `progress` gets how many pairs were scored since its last call. Scores are written
    before all pages; a page that cannot be made is an error of the logger "sdist" and one of the result's `problems`. Raises
    UserError for bad input.
    """
    check_options(options, EvaluationOptions, evaluate)
    need("evaluate", "pandas", "pyarrow", "scipy", "tabulate")
    from .evaluator import Evaluator

    folder = default_output(Path(results)) if output is None else Path(output)
    result = Evaluator(dataset, EvaluationOptions(**options))(Path(results), folder, seed, progress)
    for problem in result.problems:
        log.error("%s", problem)
    return result
