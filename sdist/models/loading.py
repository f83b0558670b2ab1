"""Loads the parts of a diffusers pipeline from a folder, the cache or the hub, and puts a backbone of their family together."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..errors import UserError
from ..faults import is_out_of_memory
from .added_files import digests
from .added_words import add_words
from .allocator import keep_freed_memory
from .base import Backbone
from .catalogue import Model, find_model, hub_problem, is_folder
from .devices import choose_device, memory_format
from .folders import Part, find_class, local_folder, read_folder
from .hub import fetch
from .kinds import family_of
from .library import loading
from .lora import fuse
from .memory import allocating
from .options import LoadOptions
from .other_vae import load_vae
from .process_state import process_state
from .single_file import LoadedParts, load_single_file
from .stored_weights import INDICES, Format, StoredWeights, check_formats, load_stored, report_left_out, wrong_shape
from .text import text_format
from .weights import MissingError
from .wrappers import unwrapped

log = logging.getLogger("sdist")

FAULTS = (OSError, ValueError, TypeError, RuntimeError, OverflowError, SafetensorError)  # of files that are missing or damaged


@dataclass(frozen=True)
class Wanted:
    """What a model is loaded for."""

    device: str = "cpu"
    conditions: int = 0
    dtype: torch.dtype = torch.float32
    shared_parts: Mapping[str, str] = field(default_factory=dict)
    options: LoadOptions = field(default_factory=LoadOptions)


def load_backbone(
    name: str,
    device: str = "auto",
    conditions: int = 0,
    dtype: torch.dtype = torch.float32,
    options: LoadOptions = LoadOptions(),  # noqa: B008 (it is frozen)
) -> Backbone:
    """The model of that alias, hub id, folder or file, on "auto", "cpu", "cuda", "cuda:1" or "mps"; the denoiser in that format.

    `conditions`: how many latents its denoiser reads beside the noisy one, 1 for InstructPix2Pix.
    """
    model, where = find_model(name, options.config), choose_device(device)
    keep_freed_memory()
    with process_state():
        backbone = _load_first(name, model, Wanted(where, conditions, dtype, model.shared_parts, options))
    backbone.name, backbone.scale, backbone.added = name, model.scale, digests(options)
    log.info("model %s from %s on %s", name, backbone.source, where)
    return backbone


def _load_first(name: str, model: Model, wanted: Wanted) -> Backbone:
    failures = []
    for source in model.sources:
        backbone, problem = _try_load(source, wanted)
        if backbone is not None:
            return backbone
        failures.append(f"{source}: {problem}")
    raise UserError(
        f"model '{name}' could not be loaded ({'; '.join(failures)}). "
        "Give a folder with a diffusers pipeline, or --model tinyworld, which is in the package"
    )


def _try_load(source: str, wanted: Wanted) -> tuple[Backbone | None, str]:
    """The model, or why it cannot be had; what the disk has only in part is fetched."""
    here, problem = local_folder(source), ""
    for folder in (here, None) if here is not None and not is_folder(source) else (here,):
        blocked = hub_problem(source) if folder is None else None
        if blocked:
            return None, f"{problem}, and {blocked}" if problem else blocked
        try:
            with allocating(wanted.device, "the model"):
                backbone = _load(fetch(source, wanted.options.variant) if folder is None else folder, wanted)
            backbone.source = source
            return backbone, ""
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        except MissingError as error:
            problem = str(error)
        except Exception as error:  # missing or damaged files, or what the code of a family gets wrong
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None, problem


def _load(place: Path, wanted: Wanted) -> Backbone:
    """Of a file, or of a folder."""
    options = wanted.options
    dtype = torch.float32 if options.loras else wanted.dtype  # LoRAs are added in float32
    form = Format(dtype, memory_format(wanted.device.partition(":")[0]))
    given = ["vae"] if options.vae else []
    with loading():
        read = (
            load_single_file(place, options.config, form, given) if place.is_file() else _read_parts(place, wanted, form, given)
        )
        if options.vae:
            read.parts["vae"] = load_vae(options.vae, find_class(read.family.components["vae"]), read.configs)
        add(read.family, read.parts, options)
    parts = {name: read.parts[name] for name in read.family.components if name in read.parts}
    backbone = read.family(parts, wanted.device, read.model_index, wanted.conditions)
    if read.stored is not None and not options.loras:
        backbone.keep_stored(read.stored)
    backbone.place(options.offload, options.storage, wanted.dtype)
    return backbone


def add(family: type[Backbone], parts: Mapping[str, Any], options: LoadOptions) -> None:
    """Puts words and LoRAs on components in float32. Raises UserError for what does not fit them."""
    add_words(parts, options.embeddings)
    fuse(family, parts, options.loras)


def _read_parts(folder: Path, wanted: Wanted, form: Format, given: Collection[str]) -> LoadedParts:
    """Only the parts that the model's family names: no safety checker, no image processor, safetensors alone.

    Text encoders come first, since their libraries need room for the files, too.
    """
    contents = read_folder(folder, wanted.shared_parts, given, wanted.options.variant)
    denoiser, parts, stored = contents.family.denoiser_name, dict[str, Any](), dict[str, StoredWeights]()
    for name, part in sorted(contents.parts.items(), key=lambda item: is_stored(item[1])):
        parts[name] = _load_part(name, part, Format() if is_stored(part) and name != denoiser else form, stored)
    return LoadedParts(contents.family, parts, contents.index, folder, stored.get(denoiser))


def load_shared_parts(folder: Path, shared_parts: Mapping[str, str]) -> dict[str, Any]:
    """The components of a pipeline's folder that tinyworld lends, by their names."""
    if not shared_parts:
        return {}
    contents = read_folder(folder, shared_parts)
    return {name: _load_part(name, contents.parts[name], Format(), {}) for name in shared_parts}


def part_problem(folder: Path, given: Collection[str]) -> str | None:
    """What is wrong with the first part of a pipeline's folder that cannot be loaded, but for those given; None if all can."""
    for name, part in read_folder(folder, {}, given).parts.items():
        try:
            with loading():
                _load_part(name, part, Format(), {})
        except (OSError, UserError) as error:
            return str(error)
    return None


def is_stored(part: Part) -> bool:
    """Whether a part is a network that is read weight by weight: those of diffusers."""
    from diffusers import ModelMixin

    return part.is_network and issubclass(part.kind, ModelMixin)


def _load_part(name: str, part: Part, form: Format, stored: dict[str, StoredWeights]) -> Any:
    """One component; a network with all of its weights, which `stored` then has too if it is of diffusers.

    What goes wrong names the part.
    """
    if part.is_network and part.variant is not None:
        log.info("%s has %s weights alone (%s)", name, part.variant, part.folder)
    try:
        if is_stored(part):
            network, stored[name] = load_stored(name, part.kind, part.folder, part.files, form)
            return network
        if part.is_network:
            return _load_network(name, part, text_format(part.kind, form.dtype))
        return part.kind.from_pretrained(part.folder, local_files_only=True)
    except FAULTS as error:
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        raise OSError(f"{name}: {type(error).__name__}: {error}") from error


def _load_network(name: str, part: Part, dtype: torch.dtype) -> Any:
    """A network of transformers. Raises UserError where the libraries would go on with random weights."""
    options = {"dtype": dtype, "variant": part.variant, "use_safetensors": True, "output_loading_info": True}
    network, report = part.kind.from_pretrained(part.folder, local_files_only=True, ignore_mismatched_sizes=True, **options)
    for key, stored, own in sorted(report["mismatched_keys"]):
        raise wrong_shape(name, key, tuple(stored), part.kind, tuple(own))
    if report["missing_keys"]:
        lacks = report["missing_keys"]
        raise UserError(f"{name} lacks {len(lacks)} weights of {part.kind.__name__}, {min(lacks)} among them")
    report_left_out(name, part.kind, {key for key in report["unexpected_keys"] if not key.endswith(INDICES)})
    check_formats(name, part.files)
    return network


def assemble(parts: Mapping[str, Any], device: str, options: Mapping[str, Any], conditions: int = 0) -> Backbone:
    """The backbone of components in float32, by their names in diffusers.

    `options`: what a pipeline's index holds beside its components.
    """
    parts = {name: unwrapped(part) for name, part in parts.items()}
    backbone = family_of(parts)(parts, device, options, conditions)
    backbone.place()
    return backbone
