"""The engine of OpenVINO, for CPUs: a network's forward is traced once per machine, and compiled when a run begins.

A trace may hold what was true of its example alone. So the first call with each number of rows runs the network itself too;
where the two differ by more than rounding, or nothing can be traced, the network goes on as it is, with a warning.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from .. import __version__
from . import network_cache
from .compiled import Engine, Forward
from .fingerprint import digest
from .structure import differences

log = logging.getLogger("sdist")

VERSIONS = ("openvino", "torch", "diffusers", "transformers")  # that a trace depends on
HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}  # formats that are computed in
FIXED = 2  # numbers of rows that have forms of their own: 0.5 s each for tinyworld, and memory for its weights
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.1}  # of the largest value of an output; rounding is below half of them


class OpenVino(Engine):
    """Forms for the first numbers of rows that come, and one for all others."""

    name: ClassVar[str] = "openvino"
    one_shape: ClassVar[bool] = False

    def compile(self, network: nn.Module, forward: Forward, recorded: Sequence[str]) -> Forward:
        return _Converted(self, network, forward, recorded)


class _Converted:
    """A forward whose inputs of each kind (structure, formats, sizes but for the rows) have forms of their own."""

    def __init__(self, engine: Engine, network: nn.Module, forward: Forward, recorded: Sequence[str]) -> None:
        self._engine, self._network, self._forward, self._recorded = engine, network, forward, recorded
        self._dtype = next(network.parameters()).dtype
        self._models: dict[str, Any] = {}  # by kind, for any number of rows; None: the network runs as it is
        self._forms: dict[tuple[str, int], Any] = {}  # by kind and number of rows; 0: for any
        self._outputs: dict[tuple[str, int], TreeSpec] = {}  # of each kind and number of rows that was checked

    def __call__(self, *inputs: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        leaves, spec = tree_flatten((inputs, options))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        rows, constants = len(tensors[0]), [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        kind = f"{spec} {constants} {[(str(t.dtype), _free_rows(t, rows)) for t in tensors]}"
        if kind in self._models and self._models[kind] is None:
            self._engine.stepped_aside = True
            return self._forward(*inputs, **options)
        if (kind, rows) not in self._outputs:
            return self._first(kind, spec, leaves, rows)
        return tree_unflatten(self._run(kind, tensors), self._outputs[kind, rows])

    def _first(self, kind: str, spec: TreeSpec, leaves: list[Any], rows: int) -> tuple[Any, dict[str, Any]]:
        """What the network itself returns, after a look at whether its form does."""
        inputs, options = tree_unflatten(leaves, spec)
        expected = self._forward(*inputs, **options)
        values, outputs = tree_flatten(expected)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        try:
            if kind not in self._models:
                self._models[kind] = self._model(kind, spec, leaves, rows)
            self._make_form(kind, tensors)
            error = _largest_error(self._run(kind, tensors), values)
        except Exception as problem:  # of any class: operations that OpenVINO does not know, networks that cannot be traced
            error, reason = float("inf"), f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
        else:
            reason = f"its outputs differ by {error:.1e} of the largest value"
        if error <= TOLERANCES[self._dtype]:
            self._outputs[kind, rows] = outputs
        else:
            self._models[kind], self._engine.stepped_aside = None, True
            log.warning("openvino steps aside for this network (%s)", reason)
        return expected

    def _run(self, kind: str, tensors: Sequence[Tensor]) -> list[Tensor]:
        form = self._forms.get((kind, len(tensors[0]))) or self._forms[kind, 0]
        outputs = form([_readable(tensor.detach()).contiguous().numpy() for tensor in tensors])
        return [torch.from_numpy(outputs[place]).to(self._dtype) for place in range(len(outputs))]

    def _make_form(self, kind: str, tensors: Sequence[Tensor]) -> None:
        """For this number of rows alone, which is fastest; beyond FIXED of them for any."""
        model, rows = self._models[kind], len(tensors[0])
        if sum(of == kind for of, _ in self._forms) < FIXED:
            model = model.clone()
            model.reshape({place: list(tensor.shape) for place, tensor in enumerate(tensors)})
        elif (kind, 0) in self._forms:
            return
        else:
            rows = 0
        self._forms[kind, rows] = _compiled(model, self._dtype)

    def _model(self, kind: str, spec: TreeSpec, leaves: list[Any], rows: int) -> Any:
        """What the disk keeps, or else what is traced."""
        import openvino

        key = self._key(kind)
        if (kept := network_cache.read(key)) is None:
            with _in_float32(self._network):
                model = _traced(self._forward, spec, leaves, rows)
                if self._dtype != torch.float32:
                    self._check_exactly(model, spec, leaves)
                network_cache.write(key, lambda xml, weights: openvino.save_model(model, xml, compress_to_fp16=False))
            if self._dtype == torch.float32:
                return model
            if (kept := network_cache.read(key)) is None:  # the values that were traced are gone
                raise OSError(f"nothing can be kept in {network_cache.folder()}")
        return openvino.Core().read_model(*kept)  # whose weights are mapped from their file

    def _check_exactly(self, model: Any, spec: TreeSpec, leaves: Sequence[Any]) -> None:
        """Of a trace that will compute in bf16, while the network is in float32: rounding hides nothing then."""
        inputs, options = tree_unflatten([_readable(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec)
        expected, _ = tree_flatten(self._forward(*inputs, **options))
        outputs = _compiled(model, torch.float32)([_readable(leaf).numpy() for leaf in leaves if isinstance(leaf, Tensor)])
        error = _largest_error([torch.from_numpy(outputs[place]) for place in range(len(outputs))], expected)
        if not error <= TOLERANCES[torch.float32]:
            raise ValueError(f"in float32 its outputs differ by {error:.1e} of the largest value")

    def _key(self, kind: str) -> str:
        """Of all that a trace depends on."""
        config = {k: str(v) for k, v in dict(getattr(self._network, "config", {})).items()}
        parts = [digest(self._network), config, list(differences(self._network)), list(self._recorded), kind]
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

    tensors = tuple(_readable(leaf) for leaf in leaves if isinstance(leaf, Tensor))
    log.info("openvino converts the network (once per machine)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python values in the trace: the outputs are checked
        decoder = TorchScriptPythonDecoder(_OnTensors(forward, spec, leaves).eval(), example_input=tensors)
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    model.reshape({place: _free_rows(tensor, rows) for place, tensor in enumerate(tensors)})
    return model


@contextmanager
def _in_float32(network: nn.Module) -> Iterator[None]:
    """In the block the network's values are in float32, in which a form is kept whatever it computes in."""
    before = {value: value.data for value in [*network.parameters(), *network.buffers()] if value.is_floating_point()}
    try:
        for value in before:
            value.data = value.data.float()
        yield
    finally:
        for value, data in before.items():
            value.data = data


def _compiled(model: Any, dtype: torch.dtype) -> Any:
    import openvino  # takes 0.2 s, and may not be installed

    hints = {"INFERENCE_PRECISION_HINT": HINTS[dtype], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    return openvino.Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", **hints})


def _free_rows(tensor: Tensor, rows: int) -> list[int]:
    """Its shape, with -1 for a number of rows that may be another in the next call."""
    return [-1 if place == 0 and size == rows else size for place, size in enumerate(tensor.shape)]


def _readable(tensor: Tensor) -> Tensor:
    """In a format that NumPy has."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def _largest_error(ours: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """As a part of each output's largest value; NaN where there is any."""
    if [value.shape for value in ours] != [value.shape for value in expected]:
        return float("inf")
    errors = [float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in zip(ours, expected, strict=True)]
    return float(torch.tensor(errors).max())  # which NaN passes through, unlike Python's max
