"""The engine of OpenVINO, for CPUs: a network's forward is traced once per machine, and compiled when a run begins.

A trace may hold what was true of its example alone. So the first call with each number of rows runs the network itself too;
where the two differ by more than rounding, or nothing can be traced, the network goes on as it is, with a warning.
"""

import json
import logging
import warnings
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from .. import __version__
from . import network_cache
from .compiled import Engine, Forward
from .fingerprint import fingerprint
from .structure import differences

log = logging.getLogger("sdist")

VERSIONS = ("openvino", "torch", "diffusers", "transformers")  # that a trace depends on
TOLERANCE = 1e-4  # of the largest value of an output; rounding is a hundredth of it


class OpenVino(Engine):
    """One form for all numbers of rows."""

    name: ClassVar[str] = "openvino"
    one_shape: ClassVar[bool] = False

    def compile(self, network: nn.Module, forward: Forward, recorded: Sequence[str]) -> Forward:
        return _Converted(self, network, forward, recorded)


class _Converted:
    """A forward whose inputs of each kind (structure, formats, sizes but for the rows) have a form of their own."""

    def __init__(self, engine: Engine, network: nn.Module, forward: Forward, recorded: Sequence[str]) -> None:
        self._engine, self._network, self._forward, self._recorded = engine, network, forward, recorded
        self._forms: dict[str, Any] = {}  # by kind; None: the network runs as it is
        self._outputs: dict[tuple[str, int], TreeSpec] = {}  # of each kind and number of rows that was checked

    def __call__(self, *inputs: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        leaves, spec = tree_flatten((inputs, options))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        rows, constants = len(tensors[0]), [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        kind = f"{spec} {constants} {[(str(t.dtype), _free_rows(t, rows)) for t in tensors]}"
        if kind in self._forms and self._forms[kind] is None:
            self._engine.stepped_aside = True
            return self._forward(*inputs, **options)
        if (kind, rows) not in self._outputs:
            return self._first(kind, spec, leaves, rows)
        return tree_unflatten(_run(self._forms[kind], tensors), self._outputs[kind, rows])

    def _first(self, kind: str, spec: TreeSpec, leaves: list[Any], rows: int) -> tuple[Any, dict[str, Any]]:
        """What the network itself returns, after a look at whether its form does."""
        inputs, options = tree_unflatten(leaves, spec)
        expected = self._forward(*inputs, **options)
        values, outputs = tree_flatten(expected)
        try:
            if kind not in self._forms:
                self._forms[kind] = self._form(kind, spec, leaves, rows)
            tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
            error = _largest_error(_run(self._forms[kind], tensors), values)
        except Exception as problem:  # of any class: operations that OpenVINO does not know, networks that cannot be traced
            error, reason = float("inf"), f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
        else:
            reason = f"its outputs differ by {error:.1e} of the largest value"
        if error <= TOLERANCE:
            self._outputs[kind, rows] = outputs
        else:
            self._forms[kind], self._engine.stepped_aside = None, True
            log.warning("openvino steps aside for this network (%s)", reason)
        return expected

    def _form(self, kind: str, spec: TreeSpec, leaves: list[Any], rows: int) -> Any:
        """Compiled from what the disk keeps, or else traced."""
        import openvino  # takes 0.2 s, and may not be installed

        core, key = openvino.Core(), self._key(kind)
        if (kept := network_cache.read(key)) is not None:
            model = core.read_model(*kept)
        else:
            model = _traced(self._forward, spec, leaves, rows)
            network_cache.write(key, lambda xml, weights: openvino.save_model(model, xml, compress_to_fp16=False))
        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        return core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", **hints})

    def _key(self, kind: str) -> str:
        """Of all that a trace depends on."""
        config = {k: str(v) for k, v in dict(getattr(self._network, "config", {})).items()}
        parts = [fingerprint([self._network]), config, list(differences(self._network)), list(self._recorded), kind]
        versions = [__version__, *(f"{name} {version(name)}" for name in VERSIONS)]
        return sha256(json.dumps([*parts, *versions], sort_keys=True).encode()).hexdigest()[:32]


class _OnTensors(nn.Module):
    """A forward as a module of tensors alone, which is what can be traced."""

    def __init__(self, forward: Forward, spec: TreeSpec, leaves: list[Any]) -> None:
        super().__init__()
        self._forward, self._spec = forward, spec
        self._constants = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        leaves = list(self._constants)
        for place, tensor in zip(self._places, tensors, strict=True):
            leaves[place] = tensor
        inputs, options = tree_unflatten(leaves, self._spec)
        return tuple(tree_flatten(self._forward(*inputs, **options))[0])


def _traced(forward: Forward, spec: TreeSpec, leaves: list[Any], rows: int) -> Any:
    """A model of OpenVINO whose number of rows is free."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    tensors = tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))
    log.info("openvino converts the network (once per machine)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python values in the trace: the outputs are checked
        decoder = TorchScriptPythonDecoder(_OnTensors(forward, spec, leaves).eval(), example_input=tensors)
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    model.reshape({place: _free_rows(tensor, rows) for place, tensor in enumerate(tensors)})
    return model


def _free_rows(tensor: Tensor, rows: int) -> list[int]:
    """Its shape, with -1 for a number of rows that may be another in the next call."""
    return [-1 if place == 0 and size == rows else size for place, size in enumerate(tensor.shape)]


def _run(form: Any, tensors: Sequence[Tensor]) -> list[Tensor]:
    outputs = form([tensor.detach().contiguous().numpy() for tensor in tensors])
    return [torch.from_numpy(outputs[place]) for place in range(len(outputs))]


def _largest_error(ours: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """As a part of each output's largest value; NaN where there is any."""
    if [value.shape for value in ours] != [value.shape for value in expected]:
        return float("inf")
    errors = [float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in zip(ours, expected, strict=True)]
    return float(torch.tensor(errors).max())  # which NaN passes through, unlike Python's max
