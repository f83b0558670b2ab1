"""Records outputs of named modules during one forward; nothing stays on the model afterwards, whatever happens."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def record(model: nn.Module, names: Iterable[str], rows: slice) -> Iterator[Mapping[str, Tensor]]:
    """A tape: module name -> the given rows of its output. Raises KeyError for a module that does not exist."""
    tape: dict[str, Tensor] = {}
    modules, handles = dict(model.named_modules()), []
    try:
        for name in names:
            if name not in modules:
                raise KeyError(f"no module '{name}' in {type(model).__name__}")
            handles.append(_hook(modules[name], name, rows, tape))
        yield tape
    finally:
        for handle in handles:
            handle.remove()


def _hook(module: nn.Module, name: str, rows: slice, tape: dict[str, Tensor]) -> RemovableHandle:
    def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        tape[name] = output[rows]

    return module.register_forward_hook(keep)
