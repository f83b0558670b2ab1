"""One registry per slot, all of them in one list below. A component is found by its name; the modules of a slot are imported when
it is first asked for.

Other packages add components by an entry point in the group `sdist.SLOT`, such as `sdist.loss`: a module whose import registers.
One that cannot be imported is warned of, and ends nothing but what asks for its components.
A dataclass whose fields hold components declares them by `one_of` and `many_of`.
"""

import logging
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import Field, field, fields, is_dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import UserError, unknown

if TYPE_CHECKING:
    from .datasets.base import Dataset
    from .denoising.base import Inversion, Solver
    from .editors.base import Editor
    from .filters import Filter
    from .gammas import Gamma
    from .losses.base import Loss
    from .metrics.base import Metric
    from .models.base import Backbone
    from .normalizers import Normalizer
    from .regions.base import RegionSource
    from .regularizers.base import Regularizer
    from .timesteps import Timesteps

T = TypeVar("T")

GROUP = "sdist."  # that an entry point's group begins with
log = logging.getLogger("sdist")


class Registry(Generic[T]):
    """Maps names to component classes of one slot; a new file in the slot's package needs no other edit."""

    def __init__(self, slot: str, module: str) -> None:
        self.slot, self._module, self._classes = slot, module, dict[str, type[T]]()
        self._complete = False
        self.broken = dict[str, str]()  # entry points that cannot be imported, and why

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
        """The class of that name. Raises a UserError that names what exists otherwise."""
        self._discover()
        if name not in self._classes:
            if name in self.broken:
                raise UserError(self.broken[name])
            own = "one of your own comes with --plugin FILE.py, in Python with plugins=[...]"
            raise UserError("; ".join([str(unknown(self.slot, name, self._classes)), own, *self.broken.values()]))
        return self._classes[name]

    def name_of(self, component: T) -> str:
        """The name that the class of a component is registered by; the class's own if it is not."""
        return next((name for name in self.names() if self.get(name) is type(component)), type(component).__name__)

    def registered(self) -> dict[str, type[T]]:
        """The classes by name so far; nothing is imported."""
        return dict(self._classes)

    def forget(self, name: str) -> None:
        """The opposite of `register`."""
        del self._classes[name]

    def _discover(self) -> None:
        if self._complete:
            return
        module = import_module(self._module)
        for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
            import_module(f"{self._module}.{info.name}")
        for point in entry_points(group=f"{GROUP}{self.slot}"):
            try:
                with all_or_nothing():
                    point.load()
            except (Exception, SystemExit) as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                self.broken[point.name] = f"{self.slot} '{point.name}' of {package_of(point)} cannot be loaded: {reason}"
                log.warning("%s", self.broken[point.name])
        self._complete = True
        _report_foreign_groups()


EDITORS: Registry["Editor"] = Registry("editor", "sdist.editors")
LOSSES: Registry["Loss"] = Registry("loss", "sdist.losses")
REGULARIZERS: Registry["Regularizer"] = Registry("regularizer", "sdist.regularizers")
FILTERS: Registry["Filter"] = Registry("filter", "sdist.filters")
NORMALIZERS: Registry["Normalizer"] = Registry("normalizer", "sdist.normalizers")
GAMMAS: Registry["Gamma"] = Registry("gamma", "sdist.gammas")
TIMESTEPS: Registry["Timesteps"] = Registry("timesteps", "sdist.timesteps")
SOLVERS: Registry["Solver"] = Registry("solver", "sdist.denoising.solvers")
INVERSIONS: Registry["Inversion"] = Registry("inversion", "sdist.denoising.inversions")
REGIONS: Registry["RegionSource"] = Registry("region", "sdist.regions")
FAMILIES: Registry["Backbone"] = Registry("family", "sdist.models")
DATASETS: Registry["Dataset"] = Registry("dataset", "sdist.datasets")
METRICS: Registry["Metric"] = Registry("metric", "sdist.metrics")

ALL = (
    EDITORS,
    LOSSES,
    REGULARIZERS,
    FILTERS,
    NORMALIZERS,
    GAMMAS,
    TIMESTEPS,
    SOLVERS,
    INVERSIONS,
    REGIONS,
    FAMILIES,
    DATASETS,
    METRICS,
)
SLOTS: dict[str, Registry] = {registry.slot: registry for registry in ALL}


def package_of(point: EntryPoint) -> str:
    """The installed package that says it."""
    return f"the installed package {point.dist.name} {point.dist.version}" if point.dist else "an installed package"


def foreign_groups() -> list[str]:
    """What is wrong with entry points whose group is no slot's, one line each."""
    found = entry_points()
    groups = sorted(group for group in found.groups if group.startswith(GROUP) and group.removeprefix(GROUP) not in SLOTS)
    return [
        f"{package_of(point)} has '{point.name}' in the group {group}, which is not read: "
        f"{unknown('slot', group.removeprefix(GROUP), SLOTS)}"
        for group in groups
        for point in found.select(group=group)
    ]


def installed() -> list[str]:
    """What other packages bring, or why they do not, one line each."""
    lines = []
    for slot, registry in SLOTS.items():
        registry.names()
        for point in entry_points(group=f"{GROUP}{slot}"):
            lines.append(registry.broken.get(point.name) or f"{slot} '{point.name}' of {package_of(point)}")
    return lines + foreign_groups()


@cache
def _report_foreign_groups() -> None:
    """Once in a process."""
    for line in foreign_groups():
        log.warning("%s", line)


@contextmanager
def all_or_nothing() -> Iterator[None]:
    """Around an import: if it fails, the classes of modules that fail with it are forgotten, so that it can be tried again."""
    before = {registry: registry.registered() for registry in ALL}
    try:
        yield
    except BaseException:
        for registry, known in before.items():
            for name, cls in registry.registered().items():
                if name not in known and cls.__module__ not in sys.modules:
                    registry.forget(name)
        raise


def one_of(slot: str, default: str | None = None) -> Any:
    """A dataclass field that holds a component of that slot; in yaml its name, or a mapping {name: ..., field: ...}, or null.

    A mapping without a name has fields of the default component.
    """
    return field(default=default, metadata={"slot": slot, "default": default})


def many_of(slot: str) -> Any:
    """A dataclass field that holds any number of components, in order; in yaml {name: {field: ...}}, null switches one off."""
    return field(default_factory=dict, metadata={"slots": slot})


def slot_defaults(cls: Any) -> dict[str, str | None]:
    """The names of the default components of a dataclass, by the fields that hold one component."""
    return {f.name: f.metadata["default"] for f in fields(cls) if "slot" in f.metadata}


def plain(component: Any) -> Any:
    """A component as plain data, from which `config.build` makes an equal one."""
    return {f.name: _plain(f, getattr(component, f.name)) for f in fields(component)}


def classes_in(component: Any) -> Iterator[type]:
    """The classes of a component and of all that its fields hold."""
    if isinstance(component, Mapping):
        for value in component.values():
            yield from classes_in(value)
    elif is_dataclass(component):
        yield type(component)
        for f in fields(component):
            yield from classes_in(getattr(component, f.name))


def _plain(where: Field, value: Any) -> Any:
    if "slot" in where.metadata:
        registry = SLOTS[where.metadata["slot"]]
        return None if value is None else {"name": registry.name_of(value), **plain(value)}
    if "slots" in where.metadata:
        return {name: plain(component) for name, component in value.items()}
    return plain(value) if is_dataclass(value) else value
