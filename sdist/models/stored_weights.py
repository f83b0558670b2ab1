"""A network of diffusers from its files, in the format that it runs in, one weight at a time: files are never held whole."""

import inspect
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..errors import UserError

log = logging.getLogger("sdist")

WHOLE = ("I", "U")  # number formats of safetensors
MAPPED = 2**25  # bytes
INDICES = ("position_ids", "num_batches_tracked")  # what is whole numbers rightly


class StoredWeights(Mapping[str, Tensor]):
    """The weights of a network as its files hold them, by the network's own names; each is read anew when it is asked for."""

    def __init__(self, network: Any, files: Sequence[Path]) -> None:
        self._files = OrderedDict[str, Path]()
        for file in files:
            with safe_open(file, "pt") as weights:
                self._files.update(dict.fromkeys(weights.keys(), file))
        self._names = OrderedDict((name, name) for name in self._files)  # in the files, by the network's own
        if len(files) == 1 and hasattr(network, "_fix_state_dict_keys_on_load"):
            network._fix_state_dict_keys_on_load(self._names)  # attention of old autoencoders has other names

    def __getitem__(self, name: str) -> Tensor:
        """One weight, whose memory is the file's until it is copied. A file is closed at once: what is mapped counts as used."""
        stored = self._names[name]
        with safe_open(self._files[stored], "pt") as weights:
            return weights.get_tensor(stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class ConvertedWeights(Mapping[str, Tensor]):
    """The weights of a network by its own names, of a file that has them by others and maybe in pieces.

    `convert` gives all of them, as parts of a file that is mapped. What was read of that counts as used memory until no part is
    held, so after MAPPED bytes they are converted anew.
    """

    def __init__(self, convert: Callable[[], Mapping[str, Tensor]]) -> None:
        self._convert, self._weights, self._read = convert, convert(), 0

    def __getitem__(self, name: str) -> Tensor:
        if self._read > MAPPED:
            self._weights, self._read = {}, 0
            self._weights = self._convert()
        value = self._weights[name]
        self._read += value.nbytes
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


class Format(NamedTuple):
    """How weights lie in memory."""

    dtype: torch.dtype = torch.float32
    layout: torch.memory_format = torch.contiguous_format  # of those of convolutions


def load_stored(name: str, kind: Any, folder: Path, files: Sequence[Path], form: Format) -> tuple[Any, StoredWeights]:
    """A network of diffusers with all of its weights in that format, and where they came from.

    Raises UserError if weights are missing, or of other shapes.
    """
    check_formats(name, files)
    network = without_weights(kind, folder)
    stored = StoredWeights(network, files)
    fill(name, network, stored, form)
    network.register_to_config(_name_or_path=str(folder))
    return network.eval(), stored


def fill(name: str, network: nn.Module, stored: Mapping[str, Tensor], form: Format) -> None:
    """Gives a network its weights in that format, one at a time. Raises UserError if some are missing, or of other shapes."""
    wanted, kind = network.state_dict(), type(network)
    if missing := sorted(set(wanted).difference(stored)):
        raise lacking(name, kind, missing)
    report_left_out(name, kind, set(stored).difference(wanted))
    for key, like in wanted.items():
        value = stored[key]
        if value.shape != like.shape:
            raise wrong_shape(name, key, tuple(value.shape), kind, tuple(like.shape))
        _put(network, key, cast(value, form))
    for key, buffer in network.named_buffers():
        if key not in wanted:
            _put(network, key, cast(buffer, form))


def lacking(name: str, kind: type, keys: Sequence[str]) -> UserError:
    """For weights of a network that its files do not have."""
    return UserError(f"{name} lacks {len(keys)} weights of {kind.__name__}, {min(keys)} among them")


def wrong_shape(name: str, key: str, stored: tuple[int, ...], kind: Any, own: tuple[int, ...]) -> UserError:
    """For a weight that a network of its configuration has in another shape."""
    return UserError(f"{name}: {key} has the shape {stored}, {kind.__name__} has {own} there")


def check_formats(name: str, files: Sequence[Path]) -> None:
    """Raises UserError for weights that are whole numbers: what they were quantized from is not known here."""
    for file in files:
        with safe_open(file, "pt") as weights:
            formats = {key: weights.get_slice(key).get_dtype() for key in weights.keys() if not key.endswith(INDICES)}  # noqa: SIM118
        if odd := next((key for key, kind in formats.items() if kind.startswith(WHOLE)), None):
            raise UserError(
                f"{name}: {odd} is {formats[odd]} in {file}: quantized weights are not read here, their originals are"
            )


def report_left_out(name: str, kind: Any, weights: Set[str]) -> None:
    """One line about weights in a network's files that its configuration has no place for."""
    if weights:
        log.warning(
            "%s: %d weights of its files have no place in a %s of its configuration and are left out, %s among them",
            name, len(weights), kind.__name__, min(weights),
        )  # fmt: skip


def without_weights(kind: Any, folder: Path) -> Any:
    """The network with weights that have a shape and no memory; as it is made where it computes values that no file has."""
    config = kind.load_config(folder)
    try:
        with torch.device("meta"):
            network = kind.from_config(config)
    except (NotImplementedError, RuntimeError):  # it reads values while it is made
        return kind.from_config(config)
    stored = network.state_dict()
    computed = [name for name, _ in (*network.named_buffers(), *network.named_parameters()) if name not in stored]
    return kind.from_config(config) if computed or not _has_values(network) else network


def _has_values(network: nn.Module) -> bool:
    """Whether tensors that are neither weights nor buffers have values; the modules that hold some are made again for that."""
    for path, module in list(network.named_modules()):
        if any(isinstance(value, Tensor) and value.is_meta for value in vars(module).values()):
            wanted = inspect.signature(type(module)).parameters
            if not path or module.state_dict() or not all(hasattr(module, name) for name in wanted):
                return False
            network.set_submodule(path, type(module)(**{name: getattr(module, name) for name in wanted}))
    return True


def cast(value: Tensor, form: Format) -> Tensor:
    """A copy in that format, with memory of its own; whole numbers stay what they are."""
    dtype = form.dtype if value.is_floating_point() else value.dtype
    layout = form.layout if value.dim() == 4 else torch.contiguous_format
    return torch.empty(value.shape, dtype=dtype, memory_format=layout).copy_(value)


def _put(network: nn.Module, key: str, value: Tensor) -> None:
    path, _, leaf = key.rpartition(".")
    owner = network.get_submodule(path)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value
