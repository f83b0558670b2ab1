"""Models that stay in memory from one edit to the next."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path

from ..config.settings import Settings
from ..models.backbone import Backbone
from ..models.catalogue import find_model
from ..models.devices import choose_device
from ..models.precision import format_on
from .score_distillation import load_model

LOADED = ("model", "device", "precision", "compile", "checkpoint", "baseline")  # settings that make another loaded model


class LoadedModels:
    """Loads a model when it is first needed, so that bad input is known at once, and keeps the last few.

    Settings that want the same model get the same object, in any thread.
    """

    def __init__(self, kept: int) -> None:
        self._kept, self._models, self._lock = kept, OrderedDict[Hashable, Backbone](), threading.Lock()

    def __reduce__(self) -> tuple[type, tuple[int]]:
        """Another process gets an empty one, and loads for itself."""
        return LoadedModels, (self._kept,)

    def __call__(self, settings: Settings) -> Backbone:
        """The model of the settings, as `load_model` gives it."""
        key = _identity(settings)
        with self._lock:
            if key not in self._models:
                while len(self._models) >= self._kept:
                    self._models.popitem(last=False)  # before the next one needs its memory
                self._models[key] = load_model(settings)
            self._models.move_to_end(key)
            return self._models[key]


def _identity(settings: Settings) -> Hashable:
    """What a loaded model depends on; weights in a folder are told apart by when they were written."""
    kind = choose_device(settings.device).partition(":")[0]
    gate = None if format_on(kind, settings.precision) == "fp32" else settings.filter  # may refuse the format
    files = [path for source in find_model(settings.model).sources for path in sorted(Path(source).glob("*/*.safetensors"))]
    weights = tuple((str(path.resolve()), path.stat().st_mtime_ns) for path in files)
    return repr(([getattr(settings, name) for name in LOADED], gate, weights))


loaded = LoadedModels(kept=2)
