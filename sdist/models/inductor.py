"""The engine of torch.compile."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils._pytree import tree_map

from .compiled import Engine, Forward

SHAPES = 64  # compiled forms at most: one per shape and set of recorded modules
GRAPHS = "triton.cudagraphs"  # the option behind the mode "reduce-overhead"


def compile_options(device: str) -> dict[str, Any]:
    """Of torch.compile, for a type of device: weights in the layout that a CPU's kernels like; on CUDA graphs of launches."""
    return {"cpu": {"freezing": True}, "cuda": {GRAPHS: True}}.get(device, {})


class Inductor(Engine):
    """torch.compile, a form for each shape. What a CUDA graph returns is overwritten by its next replay: it is copied."""

    name: ClassVar[str] = "inductor"
    one_shape: ClassVar[bool] = True

    def __init__(self, device: str) -> None:
        self._options = compile_options(device)

    def compile(self, network: nn.Module, forward: Forward, recorded: Sequence[str]) -> Forward:
        config = torch._dynamo.config
        config.cache_size_limit = max(config.cache_size_limit, SHAPES)  # recompile_limit in torch 2.6 and later
        compiled = torch.compile(forward, dynamic=False, options=self._options)
        return _copying(compiled) if self._options.get(GRAPHS) else compiled


def _copying(replay: Forward) -> Forward:
    def copied(*inputs: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        torch.compiler.cudagraph_mark_step_begin()  # nobody holds what the last replay returned
        return tree_map(torch.clone, replay(*inputs, **options))

    return copied
