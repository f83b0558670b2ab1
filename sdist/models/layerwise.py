"""A network in another number format without a second copy of it: each layer's weights are cast for the time of its call."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

LayerWeights = list[tuple[str, Tensor]]  # the weights of one layer, by their names in the network


@contextmanager
def layerwise(
    network: nn.Module, dtype: torch.dtype, stored: Mapping[str, Tensor] | None = None, device: torch.device | None = None
) -> Iterator[None]:
    """In the block every layer computes in that format, on the device or where it is; its weights are as before after each call.

    `stored`: where their values are read from, if not from the network.
    """
    home = dict[str, tuple[Tensor, Tensor]]()  # weights that are cast at present, and their own values
    hooks = []
    for path, module in network.named_modules():
        tensors = [*module.named_parameters(path, recurse=False), *module.named_buffers(path, recurse=False)]
        own = [(name, tensor) for name, tensor in tensors if tensor.is_floating_point()]
        if own:
            hooks.append(module.register_forward_pre_hook(_casting(own, home, (dtype, device), stored)))
            hooks.append(module.register_forward_hook(_restoring(own, home), always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for tensor, values in home.values():
            tensor.data = values


def _casting(
    own: LayerWeights,
    home: dict[str, tuple[Tensor, Tensor]],
    form: tuple[torch.dtype, torch.device | None],
    stored: Mapping[str, Tensor] | None,
) -> Any:
    def cast(*_: Any) -> None:
        for name, tensor in own:
            home[name] = tensor, tensor.data
            values = tensor.data if stored is None else stored[name]
            tensor.data = torch.empty_like(tensor.data, dtype=form[0], device=form[1]).copy_(values)

    return cast


def _restoring(own: LayerWeights, home: dict[str, tuple[Tensor, Tensor]]) -> Any:
    def restore(*_: Any) -> None:
        for name, tensor in own:
            if name in home:
                tensor.data = home.pop(name)[1]

    return restore
