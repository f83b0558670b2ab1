"""Records outputs of named modules during one forward; nothing stays on the model afterwards, whatever happens.

Only a compiled network keeps its hooks (see CompiledForward), which do nothing but keep the last outputs.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Tape:
    """Outputs of the last forward by module name, cut to some rows."""

    def __init__(self, rows: slice) -> None:
        self.rows, self.values = rows, dict[str, Tensor]()

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name][self.rows]


@contextmanager
def record(network: Any, names: Iterable[str], rows: slice) -> Iterator[Tape]:
    """A tape of modules of network.unet. Raises KeyError for a module that does not exist."""
    tape, handles, compiled = Tape(rows), list[RemovableHandle](), getattr(network, "compiled", None)
    modules = {name: _module(network.unet, name) for name in names}
    if compiled is not None:
        with compiled.watch(modules, tape.values):
            yield tape
        return
    try:
        for name, module in modules.items():
            handles.append(_hook(module, name, tape))
        yield tape
    finally:
        for handle in handles:
            handle.remove()


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise KeyError(f"no module '{name}' in {type(model).__name__}") from None


def _hook(module: nn.Module, name: str, tape: Tape) -> RemovableHandle:
    def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        tape.values[name] = output

    return module.register_forward_hook(keep)
