"""Records outputs of named modules during one forward; nothing stays on the model afterwards, whatever happens."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def record(model: nn.Module, names: Iterable[str], rows: slice | list[slice]) -> Iterator[Mapping[str, Tensor]]:
    """A tape: module name -> the given rows of its output. Raises KeyError for a module that does not exist."""
    tape: dict[str, Tensor] = {}
    handles = []
    try:
        for name in names:
            handles.append(_hook(model, name, rows, tape))
        yield tape
    finally:
        for handle in handles:
            handle.remove()


def _hook(model: nn.Module, name: str, rows: slice | list[slice], tape: dict[str, Tensor]):
    modules = dict(model.named_modules())
    if name not in modules:
        raise KeyError(f"no module '{name}' in {type(model).__name__}")

    def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        tape[name] = output[rows]

    return modules[name].register_forward_hook(keep)
