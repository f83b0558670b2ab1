"""Text-guided image editing by score distillation: a modular framework around LUSD (arXiv 2503.11054)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .environment import check_environment, naming_variables

if TYPE_CHECKING:
    from .api import edit, load
    from .distillation.callbacks import Snapshot
    from .distillation.distiller import ScoreDistiller
    from .draws import DrawKey
    from .edits.request import Request, Result
    from .errors import UserError
    from .evaluation.evaluate import evaluate
    from .jobs.run import run
    from .jobs.summary import RunResult
    from .losses.base import Loss
    from .metrics.base import ImageMetric
    from .pipeline.pipeline import ScoreDistillationPipeline
    from .prediction import Branch, Prediction, predict
    from .registry import DATASETS, EDITORS, LOSSES, METRICS, REGULARIZERS
    from .regularizers.base import Regularizer

__version__ = "0.1.0"
__all__ = [
    "DATASETS",
    "EDITORS",
    "LOSSES",
    "METRICS",
    "REGULARIZERS",
    "Branch",
    "DrawKey",
    "ImageMetric",
    "Loss",
    "Prediction",
    "Regularizer",
    "Request",
    "Result",
    "RunResult",
    "ScoreDistillationPipeline",
    "ScoreDistiller",
    "Snapshot",
    "UserError",
    "edit",
    "evaluate",
    "load",
    "predict",
    "run",
]

_HOMES = {
    "DATASETS": "registry",
    "EDITORS": "registry",
    "LOSSES": "registry",
    "METRICS": "registry",
    "REGULARIZERS": "registry",
    "Branch": "prediction",
    "DrawKey": "draws",
    "ImageMetric": "metrics.base",
    "Loss": "losses.base",
    "Prediction": "prediction",
    "Regularizer": "regularizers.base",
    "Request": "edits.request",
    "Result": "edits.request",
    "RunResult": "jobs.summary",
    "ScoreDistillationPipeline": "pipeline.pipeline",
    "ScoreDistiller": "distillation.distiller",
    "Snapshot": "distillation.callbacks",
    "UserError": "errors",
    "edit": "api",
    "evaluate": "evaluation.evaluate",
    "load": "api",
    "predict": "prediction",
    "run": "jobs.run",
}


def __getattr__(name: str) -> Any:
    """The public names are imported when first used (PEP 562), so that `import sdist` needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sdist' has no attribute {name!r}")
    if _HOMES[name] != "errors":  # which imports no library
        check_environment()
    with naming_variables():
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
