"""One registry a slot. A component is found by its name; modules of a slot are imported when the slot is first asked.

Other packages add components by an entry point in the group `sdist.SLOT`, such as `sdist.loss`: a module whose import registers.
"""

import pkgutil
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Generic, TypeVar

from .errors import UserError, unknown

if TYPE_CHECKING:
    from .datasets.base import Dataset
    from .denoising.base import Inversion, Solver
    from .editors.base import Baseline
    from .filters import Filter
    from .gammas import Gamma
    from .losses.base import Loss
    from .normalizers import Normalizer
    from .regularizers.base import Regularizer

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to component classes of one slot; a new file in the slot's package needs no other edit."""

    def __init__(self, slot: str, module: str) -> None:
        self.slot, self._module, self._classes = slot, module, dict[str, type[T]]()
        self._complete = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator; a name that is taken raises ValueError."""

        def add(cls: type[T]) -> type[T]:
            if name in self._classes:
                raise ValueError(f"{self.slot} '{name}' is already {self._classes[name].__qualname__}")
            self._classes[name] = cls
            return cls

        return add

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._discover()
        return sorted(self._classes)

    def get(self, name: str) -> type[T]:
        """The class of that name; UserError names what exists otherwise."""
        self._discover()
        if name not in self._classes:
            raise unknown(self.slot, name, self._classes)
        return self._classes[name]

    def _discover(self) -> None:
        if self._complete:
            return
        module = import_module(self._module)
        for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
            import_module(f"{self._module}.{info.name}")
        for point in entry_points(group=f"sdist.{self.slot}"):
            try:
                point.load()
            except Exception as error:
                raise UserError(f"{self.slot} '{point.name}' of an installed package cannot be loaded: {error}") from error
        self._complete = True


LOSSES: Registry["Loss"] = Registry("loss", "sdist.losses")
REGULARIZERS: Registry["Regularizer"] = Registry("regularizer", "sdist.regularizers")
FILTERS: Registry["Filter"] = Registry("filter", "sdist.filters")
NORMALIZERS: Registry["Normalizer"] = Registry("normalizer", "sdist.normalizers")
GAMMAS: Registry["Gamma"] = Registry("gamma", "sdist.gammas")
SOLVERS: Registry["Solver"] = Registry("solver", "sdist.denoising.solvers")
INVERSIONS: Registry["Inversion"] = Registry("inversion", "sdist.denoising.inversions")
BASELINES: Registry["Baseline"] = Registry("baseline", "sdist.editors")
DATASETS: Registry["Dataset"] = Registry("dataset", "sdist.datasets")
