"""Records outputs of named modules during one forward; nothing stays on the model afterwards, whatever happens."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def record(model: nn.Module, names: Iterable[str], rows: slice) -> Iterator[Mapping[str, Tensor]]:
    """A tape: module name -> the given rows of its output. Raises KeyError for a module that does not exist."""
    tape: dict[str, Tensor] = {}
    handles: list[RemovableHandle] = []
    try:
        for name in names:
            handles.append(_hook(_module(model, name), name, rows, tape))
        yield tape
    finally:
        for handle in handles:
            handle.remove()


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise KeyError(f"no module '{name}' in {type(model).__name__}") from None


def _hook(module: nn.Module, name: str, rows: slice, tape: dict[str, Tensor]) -> RemovableHandle:
    def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        tape[name] = output[rows]

    return module.register_forward_hook(keep)
