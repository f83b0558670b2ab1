"""What an edit needs of memory, from the configurations of a model alone: its networks are made without values, and called.

On torch's meta device tensors have shapes and no memory, so that what would be allocated at once can be counted.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .base import Backbone
from .catalogue import TINYWORLD
from .folders import INDEX, check_tokenizer, find_class, read_index
from .residence import bytes_of, count
from .text import text_format
from .weights import MissingError

META = torch.device("meta")
PROMPT = "a cat"


@dataclass(frozen=True)
class Needs:
    """Bytes, of one image of a size."""

    denoiser: int  # its weights in the format that it runs in
    layer: int  # the largest of its layers
    vae: int
    encoders: int  # of text, which work before the first step
    row: int  # what the denoiser computes for one row
    codec: int  # what the autoencoder computes, encoding or decoding

    def peak(self, rows: int, offload: str = "none", share: float = 1.0) -> int:
        """What must be on the device at once; `share`: of the denoiser's weights, where their storage is narrower."""
        weights, step = int(self.denoiser * share), rows * self.row
        if offload == "none":
            return weights + self.vae + max(step, self.codec)
        if offload == "model":
            return max(weights + step, self.vae + self.codec)
        return self.vae + max(2 * self.layer + step, self.codec)  # a layer computes while the next one comes


@dataclass(frozen=True)
class Ways:
    """How an edit's networks may be held."""

    offloads: tuple[str, ...]
    fp8: float | None  # what is left of the denoiser's bytes; None where its weights must stay as they are


def without_values(folder: Path, shared_parts: Mapping[str, str]) -> Backbone:
    """The model of a pipeline's folder, which needs no weights; `shared_parts`: folders of tinyworld, by part.

    Raises UserError, or OSError where a configuration is missing.
    """
    index, listed, family = read_index(folder)
    if "scheduler" not in listed:
        raise MissingError(f"{INDEX} lists no scheduler")
    parts = {}
    for name in (name for name in family.components if name in listed or name not in family.optional):
        kind = find_class(listed[name][0] if name == "scheduler" else family.components[name])
        place = folder / name if (folder / name).is_dir() or name not in shared_parts else TINYWORLD / shared_parts[name]
        check_tokenizer(name, kind, place)
        is_network = issubclass(kind, nn.Module)
        parts[name] = _network(kind, place) if is_network else kind.from_pretrained(place, local_files_only=True)
    return family(parts, "meta", index)


def _network(kind: Any, folder: Path) -> nn.Module:
    with META:
        if issubclass(kind, ModelMixin):
            return kind.from_config(kind.load_config(folder))
        return kind(kind.config_class.from_pretrained(folder, local_files_only=True))


def measure(model: Backbone, dtype: torch.dtype, size: tuple[int, int]) -> Needs:
    """Of a model without values, for an image of (width, height)."""
    nn.Module.to(model.denoiser, dtype)
    height, width = model.latent_size(size)
    pixels = torch.zeros(1, 3, size[1], size[0], device=META)
    z, t = torch.zeros(1, model.channels, height, width, device=META), torch.ones(1, device=META)
    with torch.no_grad(), AttentionWithoutMatrix():
        text = model.text.embed([PROMPT])
        row = peak(model.denoiser, lambda: model.estimate(model.with_condition(z), t, text))
        encoding = peak(model.vae, lambda: model.posterior(pixels).mean)
        decoding = peak(model.vae, lambda: model.pixels(z))
    layers = (sum(w.numel() for w in module.parameters(recurse=False)) for module in model.denoiser.modules())
    encoders = sum(count(encoder) * text_format(type(encoder), dtype).itemsize for encoder in model.text.encoders)
    denoiser, layer = count(model.denoiser) * dtype.itemsize, max(layers) * dtype.itemsize
    return Needs(denoiser, layer, bytes_of(model.vae), encoders, row, max(encoding, decoding))


def peak(network: nn.Module, call: Callable[[], Any]) -> int:
    """The most bytes that a call has allocated at once, beside the network's own."""
    with Allocations([*network.parameters(), *network.buffers()]) as allocations:
        call()
    return allocations.peak


class Allocations(TorchDispatchMode):
    """Counts what every operation in the block allocates, as long as somebody holds it; what is known before does not count."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in (leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._known:
                self._known.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        return out

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class AttentionWithoutMatrix(TorchFunctionMode):
    """Attention allocates its result alone, as the kernels of real devices do."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if function is torch.nn.functional.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value"), args, strict=False)) | dict(kwargs or {})
            return given["query"].new_empty(*given["query"].shape[:-1], given["value"].shape[-1])
        return function(*args, **(kwargs or {}))


def plans(needs: Needs, draws: int, rows: int, ways: Ways) -> Iterator[tuple[str, int]]:
    """Flags of an edit and what it needs with them, quick ones first; a draw has so many rows."""
    for offload in ways.offloads:
        flag = "" if offload == "none" else f"--offload {offload}"
        for parallel in dict.fromkeys((draws, 1)):
            yield " ".join(filter(None, [flag, "--parallel 1" if parallel < draws else ""])), needs.peak(parallel * rows, offload)
    if ways.fp8 is not None:
        yield " ".join(["--storage fp8", *(["--parallel 1"] if draws > 1 else [])]), needs.peak(rows, share=ways.fp8)
