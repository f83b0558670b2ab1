"""Loads the parts of a diffusers pipeline from a folder, the cache or the hub, and puts a backbone of their family together."""

import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from ..errors import UserError
from ..registry import FAMILIES
from .allocator import keep_freed_memory
from .base import Backbone
from .catalogue import TINYWORLD, Model, find_model, hub_problem, is_folder, on_disk
from .devices import choose_device

log = logging.getLogger("sdist")


def load_backbone(name: str, device: str = "auto", conditions: int = 0) -> Backbone:
    """The model of that alias, hub id or folder, float32, on "auto", "cpu", "cuda", "cuda:1" or "mps".

    `conditions`: how many latents its denoiser reads beside the noisy one, 1 for InstructPix2Pix.
    """
    model, where = find_model(name), choose_device(device)
    keep_freed_memory()
    backbone = _load_first(name, model, where, conditions)
    backbone.name = name
    log.info("model %s from %s on %s", name, backbone.source, where)
    return backbone


def _load_first(name: str, model: Model, device: str, conditions: int) -> Backbone:
    failures = []
    for source in model.sources:
        backbone, problem = _try_load(source, device, conditions, model.borrowed)
        if backbone is not None:
            return backbone
        failures.append(f"{source}: {problem}")
    raise UserError(
        f"model '{name}' could not be loaded ({'; '.join(failures)}). "
        "Give a folder with a diffusers pipeline, or --model tinyworld, which is in the package"
    )


def _try_load(source: str, device: str, conditions: int, borrowed: Mapping[str, str]) -> tuple[Backbone | None, str]:
    """The model, or why it cannot be had; what the disk has only in part is fetched."""
    local, problem = on_disk(source), ""
    for only_local in (True, False) if local and not is_folder(source) else (local,):
        blocked = None if only_local else hub_problem(source)
        if blocked:
            return None, problem or blocked
        try:
            backbone = _load(source, device, only_local, conditions, borrowed)
            backbone.source = source
            return backbone, ""
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        except (OSError, ValueError, TypeError, RuntimeError, OverflowError, SafetensorError) as error:  # missing or damaged
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None, problem


def _load(source: str, device: str, local: bool, conditions: int, borrowed: Mapping[str, str]) -> Backbone:
    """Only the parts that the model's family names: no safety checker, no image processor, safetensors alone."""
    from diffusers import DiffusionPipeline

    where = {"local_files_only": local}
    index = DiffusionPipeline.load_config(source, **where)
    families = families_of({name: value[1:] for name, value in index.items() if isinstance(value, list)})
    name = families[0].denoiser_name
    family = matching(families, find_class(families[0].components[name]).load_config(source, subfolder=name, **where))
    there = {name for name, value in index.items() if isinstance(value, list) and value[0] is not None}
    wanted = {name: kind for name, kind in family.components.items() if name in there or name not in family.optional}
    parts = {}
    for name, kind in wanted.items():
        home, folder = (str(TINYWORLD), borrowed[name]) if name in borrowed else (source, name)
        parts[name] = _load_part(find_class(kind), home, folder, **where)
    return family(parts, device, index, conditions)


def find_class(name: str) -> Any:
    """A class of diffusers or transformers by its name, of any other module by module.Class."""
    module, _, plain = name.rpartition(".")
    for package in [module] if module else ("diffusers", "transformers"):
        if hasattr(candidate := import_module(package), plain):
            return getattr(candidate, plain)
    raise UserError(f"the installed diffusers and transformers have no {name}; a newer version may")


def _load_part(cls: Any, source: str, name: str, **where: Any) -> Any:
    """One component; a network with all of its weights, in float32."""
    from diffusers import ModelMixin

    if not issubclass(cls, nn.Module):
        return cls.from_pretrained(source, subfolder=name, **where)
    of_diffusers = issubclass(cls, ModelMixin)
    options = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False} if of_diffusers else {"dtype": torch.float32}
    return _load_network(cls, source, name, **options, **where)


def _load_network(cls: Any, source: str, part: str, **options: Any) -> Any:
    """One network with all of its weights. Raises UserError where the libraries would go on with random ones."""
    network, report = cls.from_pretrained(source, subfolder=part, use_safetensors=True, output_loading_info=True, **options)
    if report["missing_keys"]:
        raise UserError(
            f"{part} lacks {len(report['missing_keys'])} weights of {cls.__name__}, {min(report['missing_keys'])} among them"
        )
    return network


def families_of(kinds: Mapping[str, Any]) -> list[type[Backbone]]:
    """The families whose denoiser is among components of these classes and their bases. Raises UserError if there is none."""
    every = [FAMILIES.get(name) for name in FAMILIES.names()]
    known = {family: family.components[family.denoiser_name].rpartition(".")[2] for family in every}
    families = [family for family, kind in known.items() if kind in kinds.get(family.denoiser_name, ())]
    if families:
        return families
    denoiser = next((kinds[name][0] for name in ("transformer", "unet", *kinds) if kinds.get(name)), "missing")
    raise UserError(
        f"the denoiser of this model is {denoiser}, which is not known here: have {', '.join(sorted({*known.values()}))}"
    )


def matching(families: Sequence[type[Backbone]], config: Mapping[str, Any]) -> type[Backbone]:
    """The one that a denoiser of that configuration belongs to. Raises UserError if it is none of them."""
    for family in families:
        if family.matches(config):
            return family
    kind = families[0].components[families[0].denoiser_name]
    names = ", ".join(name for name in FAMILIES.names() if FAMILIES.get(name) in families)
    raise UserError(f"this {kind} reads something else than those of the families known here ({names})")


def assemble(parts: Mapping[str, Any], device: str, options: Mapping[str, Any], conditions: int = 0) -> Backbone:
    """The backbone of components in float32, by their names in diffusers.

    `options`: what a pipeline's index holds beside its components.
    """
    inner = {name: getattr(part, "_orig_mod", part) for name, part in parts.items()}  # of what torch.compile gives
    families = families_of({name: [base.__name__ for base in type(part).__mro__] for name, part in inner.items()})
    family = matching(families, parts[families[0].denoiser_name].config)
    missing = [name for name in family.components if parts.get(name) is None and name not in family.optional]
    if missing:
        kind = family.components[family.denoiser_name]
        raise UserError(f"this {kind} needs {', '.join(missing)} beside it, which the pipeline does not have")
    return family(parts, device, options, conditions)
