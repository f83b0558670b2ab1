"""A network's forward as one compiled function for each shape, with the outputs of recorded modules among its results."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

SHAPES = 64  # compiled forms at most: one per shape and set of recorded modules
GRAPHS = "triton.cudagraphs"  # the option behind the mode "reduce-overhead"


def compile_options(device: str) -> dict[str, Any]:
    """Of torch.compile, for a type of device: weights in the layout that a CPU's kernels like; on CUDA graphs of launches."""
    return {"cpu": {"freezing": True}, "cuda": {GRAPHS: True}}.get(device, {})


class CompiledForward:
    """Calls the network compiled; where autograd is on, as it is.

    Hooks that come and go would be invisible to a compiled function. So those of modules that were ever watched stay; they
    hand over what they saw while someone watches. What a CUDA graph returns is overwritten by its next replay: it is copied.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network, self._seen = network, dict[str, Any]()
        self._hooked: set[str] = set()
        self._tapes: list[dict[str, Any]] = []
        self._options = compile_options(next(network.parameters()).device.type)
        self._function: Any = None

    @contextmanager
    def watch(self, modules: Mapping[str, nn.Module], tape: dict[str, Any]) -> Iterator[None]:
        """Until the end of the context, every call puts these modules' outputs on the tape."""
        for name, module in modules.items():
            if name not in self._hooked:
                module.register_forward_hook(self._hook(name))
                self._hooked.add(name)
                self._function = None
        self._tapes.append(tape)
        try:
            yield
        finally:
            self._tapes = [other for other in self._tapes if other is not tape]

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        run = self._forward if torch.is_grad_enabled() else self._run_compiled
        out, seen = run(*inputs, **options)
        for tape in self._tapes:
            tape.update(seen)
        return out

    def _run_compiled(self, *inputs: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        if not self._options.get(GRAPHS):
            return self._compiled()(*inputs, **options)
        torch.compiler.cudagraph_mark_step_begin()  # nobody holds what the last replay returned
        out, seen = self._compiled()(*inputs, **options)
        return tree_map(torch.clone, out), tree_map(torch.clone, seen) if self._tapes else {}

    def _compiled(self) -> Any:
        if self._function is None:
            config = torch._dynamo.config
            config.cache_size_limit = max(config.cache_size_limit, SHAPES)  # recompile_limit in torch 2.6 and later
            self._function = torch.compile(self._forward, dynamic=False, options=self._options)
        return self._function

    def _forward(self, *inputs: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        self._seen = {}
        out = self._network(*inputs, **options, return_dict=False)[0]
        return out, self._seen

    def _hook(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: tuple, output: Any) -> None:
            self._seen[name] = output

        return keep
