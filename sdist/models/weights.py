"""The files that hold the weights of one part of a pipeline: safetensors inside its folder, and nothing else.

An index of shards lists files, and somebody else wrote it. The libraries open what it says, a pickle too, which runs code.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UserError

STEMS = ("diffusion_pytorch_model", "model")  # of diffusers, of transformers
SUFFIX = ".safetensors"
PREFERRED = ("fp32", "bf16", "fp16")  # of several variants, where there is no file without one
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5")


class MissingError(OSError):
    """A file of a part is not there, or only in part; a hub may have it."""


class Weights(NamedTuple):
    """Files of one network, and the variant in their names, such as fp16."""

    files: tuple[Path, ...]
    variant: str | None


def find_weights(part: Path, variant: str = "") -> Weights:
    """The weights that are read from the folder of a part: of that variant if there are some.

    Raises MissingError, or UserError if that is unsafe.
    """
    names = [path.name for path in sorted(part.glob("*"))]
    shards = check_indexes(part)
    found = choose(names, variant)
    if found is None:
        raise MissingError(_nothing(part.name, names))
    chosen, name = found
    files = shards.get(name, (part / name,))
    for file in files:
        check_whole(file)
    return Weights(files, chosen)


def check_indexes(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The shards of every index in a folder, whichever is read. Raises UserError for one that is unsafe."""
    return {path.name: shards_of(path) for path in sorted(folder.glob("*.json")) if is_index(path.name)}


def choose(names: Iterable[str], first: str = "") -> tuple[str | None, str] | None:
    """Of the files of a part, the one that holds its weights or lists their shards, with its variant; `first` if it is there."""
    kinds = [name for name in names if is_index(name) or (_is_weights(name) and "-of-" not in name)]
    found = {variant_of(name): name for name in sorted(kinds, key=is_index, reverse=True)}  # a whole file before an index
    for variant in (first or None, None, *PREFERRED, *sorted(variant for variant in found if variant)):
        if variant in found:
            return variant, found[variant]
    return None


def variants_in(part: Path) -> set[str]:
    """Of the weights in the folder of a part; empty for those without one."""
    return {variant_of(path.name) or "" for path in part.glob("*") if _is_weights(path.name) or is_index(path.name)}


def is_index(name: str) -> bool:
    """Whether a file is an index of shards of safetensors."""
    return SUFFIX in name and "index" in name.split(".") and name.endswith(".json")


def variant_of(name: str) -> str | None:
    """fp16 of model.fp16.safetensors, of a shard model.fp16-00001-of-00002.safetensors, of model.safetensors.index.fp16.json."""
    words = [word.partition("-")[0] for word in name.removesuffix(".json").split(".")]
    return ".".join(word for word in words if word not in (*STEMS, "safetensors", "index")) or None


def shards_of(index: Path) -> tuple[Path, ...]:
    """The files that an index of shards names. Raises UserError if one is no safetensors file of the index's own folder."""
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{_short(index)} is no index of shards: its weight_map must name a file for every weight")
    files = [index.parent / name for name in dict.fromkeys(names.values())]
    for name, file in zip(dict.fromkeys(names.values()), files, strict=True):
        if not name.endswith(SUFFIX):
            raise UserError(f"{_short(index)} lists {name!r}: only {SUFFIX} files are loaded, others can run code")
        if Path(name).name != name or "\\" in name or not _is_inside(file, index.parent):
            raise UserError(f"{_short(index)} lists {name!r}, which is outside of its folder: put the shards beside the index")
    return tuple(files)


def check_whole(file: Path) -> None:
    """Raises MissingError for a safetensors file that is not there, or is shorter than its own table of contents says."""
    if not file.is_file():
        raise MissingError(f"{_short(file)} is missing")
    with opened(file):
        pass


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A safetensors file for the time of the block. Raises MissingError if it is damaged."""
    try:
        weights = safe_open(file, "pt")
    except (SafetensorError, OSError) as error:
        raise MissingError(f"{_short(file)} is damaged or cut short ({' '.join(str(error).split())[:100]})") from None
    with weights:
        yield weights


def mapped(file: Path) -> dict[str, Tensor]:
    """All weights of a file, whose memory is the file's until they are copied. Raises MissingError if it is damaged."""
    with opened(file) as weights:
        return {key: weights.get_tensor(key) for key in weights.keys()}  # noqa: SIM118


def read_json(path: Path) -> dict[str, Any]:
    """An object from a json file. Raises MissingError if it is not there, UserError if it holds something else."""
    if not path.is_file():
        raise MissingError(f"{_short(path)} is missing")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of json, and of text that is not UTF-8
        raise UserError(f"{_short(path)} is damaged ({error})") from None
    if not isinstance(data, dict):
        raise UserError(f"{_short(path)} is damaged (no object, a {type(data).__name__})")
    return data


def _is_weights(name: str) -> bool:
    return name.endswith(SUFFIX) and name.partition(".")[0].partition("-")[0] in STEMS


def _is_inside(file: Path, folder: Path) -> bool:
    """Whether it really is a file of that folder; in a cache of the hub its files are links to the blobs beside the snapshots."""
    snapshots = next((above for above in folder.absolute().parents if above.name == "snapshots"), None)
    homes = [folder, *([snapshots.parent / "blobs"] if snapshots is not None else [])]
    return any(file.resolve().is_relative_to(home.resolve()) for home in homes)


def _nothing(part: str, names: Iterable[str]) -> str:
    others = [name for name in names if name.endswith(PICKLES)]
    if not others:
        return f"{part} has no weights: {STEMS[0]}{SUFFIX} or {STEMS[1]}{SUFFIX} is missing"
    return f"{part} has no {SUFFIX} file but {others[0]}, which can run code and is never loaded: convert it with diffusers"


def _short(path: Path) -> str:
    """As it stands in the pipeline's folder."""
    return f"{path.parent.name}/{path.name}"
