"""What a pipeline's folder holds, part by part, and whether all of it is there: a folder on this disk, or the hub's cache."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UserError
from ..registry import FAMILIES
from .base import Backbone
from .catalogue import TINYWORLD, find_model, is_folder, is_single_file
from .weights import MissingError, find_weights, read_json, variants_in

INDEX = "model_index.json"
OF_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",))  # any of these sets will do
FOREIGN = {  # files beside a network's weights that would have the libraries load others, and what they are
    "adapter_config.json": "an adapter, which is not read here: merge it (peft's merge_and_unload) and save the whole encoder",
}
FOREIGN_KEYS = {  # of a network's config.json
    "transformers_weights": "names another file of weights, which is not read here: rename that file to model.safetensors",
    "quantization_config": "says that the weights are quantized, which is not read here: give the model that they were made of",
}


@dataclass(frozen=True)
class Part:
    """One component: its class, and where it lies."""

    kind: Any  # its class
    folder: Path
    variant: str | None = None  # of the names of its weights

    @property
    def is_network(self) -> bool:
        return issubclass(self.kind, nn.Module)

    @property
    def files(self) -> tuple[Path, ...]:
        """Of its weights."""
        return find_weights(self.folder, self.variant or "").files


@dataclass(frozen=True)
class Contents:
    """A pipeline's folder, read but for the weights."""

    index: dict[str, Any]
    family: type[Backbone]
    parts: dict[str, Part]


def read_folder(folder: Path, shared_parts: Mapping[str, str], given: Collection[str] = (), variant: str = "") -> Contents:
    """The parts that the model's family names but for those `given`, with all of their files.

    `shared_parts` are folders of tinyworld by part; weights are of the `variant` where there are some.

    Raises MissingError for a file that is not there, UserError for a model that cannot be used or is unsafe.
    """
    index, listed, family = read_index(folder)
    wanted = {name: kind for name, kind in family.components.items() if name in listed or name not in family.optional}
    parts = {}
    for name, kind in ((name, kind) for name, kind in wanted.items() if name not in given):
        if name in shared_parts and not (folder / name).is_dir():
            parts[name] = _read_part(name, find_class(kind), TINYWORLD / shared_parts[name])
            continue
        parts[name] = _read_part(name, find_class(_kind(name, family, listed, folder / name)), folder / name, variant)
    have = {found for part in parts.values() if variant and part.is_network for found in variants_in(part.folder)}
    if variant and variant not in have:
        raise MissingError(f"no part has weights of the variant {variant}: have {', '.join(sorted(v or 'none' for v in have))}")
    return Contents(index, family, parts)


def read_index(folder: Path) -> tuple[dict[str, Any], dict[str, list[str]], type[Backbone]]:
    """What model_index.json of a pipeline's folder holds, the class of each part in it, in a list, and the family of the model.

    Raises MissingError, or UserError for a model of no family.
    """
    index = read_json(folder / INDEX)
    listed = listed_parts(index)
    families = families_of(listed)
    return index, listed, matching(families, read_json(folder / families[0].denoiser_name / "config.json"))


def listed_parts(index: Mapping[str, Any]) -> dict[str, list[str]]:
    """The class of each part that a pipeline's index lists, in a list."""
    pairs = {name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2 and value[0] is not None}
    return {name: [str(kind)] for name, (_, kind) in pairs.items()}


def problem(source: str) -> str | None:
    """Why a model's source cannot be loaded from this disk as it is; None if all files of all parts are there."""
    folder = local_folder(source)
    if folder is None:
        return "not on this disk"
    try:
        if not folder.is_file():
            read_folder(folder, find_model(source).shared_parts)
    except (OSError, UserError) as error:
        return str(error)
    return None


def on_disk(source: str) -> bool:
    """Whether a source is on this disk with all of its files."""
    return problem(source) is None


def local_folder(source: str) -> Path | None:
    """Where a source lies on this disk, whole or not: a folder or a file itself, of a hub id the cached snapshot."""
    if is_single_file(source):
        return Path(source)
    if is_folder(source):
        return Path(source).absolute() if (Path(source) / INDEX).is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        index = try_to_load_from_cache(source, INDEX)
    except HFValidationError:
        return None
    return Path(index).parent if isinstance(index, str) else None


def find_class(name: str) -> Any:
    """A class of diffusers or transformers by its name, of any other module by module.Class."""
    module, _, plain = name.rpartition(".")
    for package in [module] if module else ("diffusers", "transformers"):
        if hasattr(candidate := import_module(package), plain):
            return getattr(candidate, plain)
    raise UserError(f"the installed diffusers and transformers have no {name}; a newer version may")


def families_of(kinds: Mapping[str, Any]) -> list[type[Backbone]]:
    """The families whose denoiser is among components of these classes and their bases, the most special one first.

    Raises UserError if there is none.
    """
    known = denoisers()
    families = [family for family, kind in known.items() if kind in kinds.get(family.denoiser_name, ())]
    if families:
        return families
    names = sorted({family.denoiser_name for family in known})
    denoiser = next((f"the denoiser of this model is {kinds[name][0]}, which" for name in names if kinds.get(name)), None)
    said = denoiser or f"this model has no {' and no '.join(names)}: another denoiser"
    raise UserError(f"{said} is not known here: have {', '.join(sorted({*known.values()}))}")


def denoisers() -> dict[type[Backbone], str]:
    """The class of each family's denoiser, the most special family first."""
    every = sorted((FAMILIES.get(name) for name in FAMILIES.names()), key=_generality)
    return {family: family.components[family.denoiser_name].rpartition(".")[2] for family in every}


def _generality(family: type[Backbone]) -> tuple[bool, int]:
    """A package's own families are asked before those that are here, and a family before the one that it derives from."""
    return family.__module__.startswith("sdist."), -len(family.mro())


def matching(families: list[type[Backbone]], config: Mapping[str, Any]) -> type[Backbone]:
    """The one that a denoiser of that configuration belongs to. Raises UserError if it is none of them."""
    for family in families:
        if family.matches(config):
            return family
    kind = families[0].components[families[0].denoiser_name]
    names = ", ".join(name for name in FAMILIES.names() if FAMILIES.get(name) in families)
    raise UserError(f"this {kind} reads something else than those of the families known here ({names})")


def _kind(name: str, family: type[Backbone], listed: Mapping[str, list[str]], folder: Path) -> str:
    """The class that a part is to be loaded as. Raises UserError if the folder says that it is none that the family knows."""
    own = family.components[name]
    if name not in listed:
        raise MissingError(f"{INDEX} lists no {name}, which {own} is for")
    config = folder / "scheduler_config.json" if name == "scheduler" else folder / "config.json"
    said = [*listed[name], *([read_json(config).get("_class_name")] if config.is_file() else [])]
    for kind in filter(None, said):
        family.check_kind(name, [str(kind)])
    return str(said[-1] or said[0]) if name == "scheduler" else own


def _read_part(name: str, kind: Any, folder: Path, variant: str = "") -> Part:
    check_tokenizer(name, kind, folder)
    if hasattr(kind, "vocab_files_names"):
        return Part(kind, folder)
    config = read_json(folder / getattr(kind, "config_name", "config.json"))
    if not issubclass(kind, nn.Module):
        return Part(kind, folder)
    _check_network(name, config, folder)
    return Part(kind, folder, find_weights(folder, variant).variant)


def check_tokenizer(name: str, kind: Any, folder: Path) -> None:
    """Raises MissingError for a part that is a tokenizer and has no words, which the libraries would go on without."""
    is_whole = any(all((folder / file).is_file() for file in files) for files in OF_TOKENIZERS)
    if hasattr(kind, "vocab_files_names") and not is_whole:
        raise MissingError(f"{name} has no {' and no '.join(files[0] for files in OF_TOKENIZERS)}")


def _check_network(name: str, config: Mapping[str, Any], folder: Path) -> None:
    """Raises UserError for a network that the libraries would read from elsewhere, or not at all."""
    if name == "vae" and config.get("sample_size", 1) is None:
        raise UserError("vae/config.json has no sample_size: write the side in pixels of the images that it was trained on")
    for file, what in FOREIGN.items():
        if (folder / file).exists():
            raise UserError(f"{name}/{file} is {what}")
    for key, what in FOREIGN_KEYS.items():
        if config.get(key) is not None:
            raise UserError(f"{name}/config.json has {key}, which {what}")
