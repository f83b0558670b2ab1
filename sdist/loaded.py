"""Models that stay in memory from one edit to the next."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path

from .backbone import Backbone, choose_device
from .config import Settings
from .editing import load_model
from .filters import StdThreshold
from .models import find_model


class LoadedModels:
    """The last few models, each with what determines it; safe to ask from several threads."""

    def __init__(self, kept: int) -> None:
        self._kept, self._models, self._lock = kept, OrderedDict[Hashable, Backbone](), threading.Lock()

    def __call__(self, settings: Settings) -> Backbone:
        """The model of the settings, as `load_model` gives it."""
        key = _identity(settings)
        with self._lock:
            if key not in self._models:
                while len(self._models) >= self._kept:
                    self._models.popitem(last=False)  # before loading, to have room
                self._models[key] = load_model(settings)
            self._models.move_to_end(key)
            return self._models[key]


def _identity(settings: Settings) -> Hashable:
    """What a loaded model depends on; weights in a folder are told apart by when they were written."""
    device, accept = choose_device(settings.device), settings.filter
    half = settings.precision not in ("auto", "fp32") or (settings.precision == "auto" and device.startswith("cuda"))
    threshold = accept.threshold if half and isinstance(accept, StdThreshold) else None  # a gate for half precision only
    files = [path for source in find_model(settings.model).sources for path in sorted(Path(source).glob("*/*.safetensors"))]
    weights = tuple((str(path.resolve()), path.stat().st_mtime_ns) for path in files)
    return settings.model, weights, device, settings.precision, threshold, settings.compile, settings.checkpoint


loaded = LoadedModels(kept=2)
