"""A network's forward as one compiled function, with the outputs of recorded modules among its results."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from ..errors import UserError

log = logging.getLogger("sdist")

Choice = Literal["none", "auto", "inductor", "openvino"]  # of the setting `compile`
Forward = Callable[..., tuple[Any, dict[str, Any]]]  # what the network returns, and outputs of recorded modules by name


class Engine(ABC):
    """Makes a fast function of a network's forward; another one whenever another module is recorded."""

    name: ClassVar[str]
    one_shape: ClassVar[bool]  # whether a call with another number of rows is compiled anew
    stepped_aside = False  # whether it left a call of the present edit to torch

    @abstractmethod
    def compile(self, network: nn.Module, forward: Forward, recorded: Sequence[str]) -> Forward:
        """A function that returns what `forward` does, up to rounding, where autograd is off."""


def engine_for(choice: Choice, device: str, dtype: torch.dtype) -> Engine | None:
    """The engine for a denoiser of that format on that type of device; None: it runs as it is.

    "auto" is what was measured to be fastest (docs/performance.md): OpenVINO on a CPU where it is installed, else inductor,
    but on MPS none. Raises UserError for an engine that cannot be had.
    """
    from .inductor import Inductor  # these import Engine
    from .openvino import HINTS, OpenVino

    has_openvino, fits = find_spec("openvino") is not None, device == "cpu" and dtype in HINTS
    if choice == "openvino" and not has_openvino:
        raise UserError("--compile openvino needs openvino: pip install 'sdist[fast]'")
    if choice == "openvino" and not fits:
        raise UserError(
            f"--compile openvino runs on a CPU in fp32 or bf16, this is {device} in {str(dtype).removeprefix('torch.')}"
        )
    if choice == "openvino" or (choice == "auto" and has_openvino and fits):
        return OpenVino()
    return Inductor(device) if choice == "inductor" or (choice == "auto" and device == "cuda") else None


class CompiledForward:
    """Calls the network compiled; where autograd is on, as it is.

    Hooks that come and go would be invisible to a compiled function. So those of modules that were ever watched stay; they
    hand over what they saw while someone watches.
    """

    def __init__(self, network: nn.Module, engine: Engine) -> None:
        self.engine = engine
        self._network, self._seen = network, dict[str, Any]()
        self._hooked: set[str] = set()
        self._tapes: list[dict[str, Any]] = []
        self._function: Forward | None = None
        self._paused = self._reported = False

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
        run = self._forward if self._paused or torch.is_grad_enabled() else self._compiled()
        out, seen = run(*inputs, **options)
        for tape in self._tapes:
            tape.update(seen)
        return out

    @contextmanager
    def paused(self) -> Iterator[None]:
        """In the block the network runs as it is, for what a compiled function hides: layers that are changed. Said once."""
        if not self._reported:
            log.info("%s steps aside: this method changes layers, which a compiled network hides", self.engine.name)
        before, self._paused, self._reported, self.engine.stepped_aside = self._paused, True, True, True
        try:
            yield
        finally:
            self._paused = before

    def begin_edit(self) -> None:
        """From here on `engine.stepped_aside` is about the next edit."""
        self.engine.stepped_aside = self._paused

    def _compiled(self) -> Forward:
        if self._function is None:
            self._function = self.engine.compile(self._network, self._forward, sorted(self._hooked))
        return self._function

    def _forward(self, *inputs: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        self._seen = {}
        out = self._network(*inputs, **options, return_dict=False)[0]
        return out, self._seen

    def _hook(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: tuple, output: Any) -> None:
            self._seen[name] = output

        return keep
