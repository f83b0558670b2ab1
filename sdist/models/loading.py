"""Loads the parts of a diffusers pipeline from a folder, the cache or the hub, and puts a Backbone together."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError

from ..errors import UserError
from .allocator import keep_freed_memory
from .backbone import Backbone
from .catalogue import Model, find_model, hub_problem, is_folder, on_disk
from .devices import choose_device
from .text import PromptEncoder

log = logging.getLogger("sdist")


def load_backbone(name: str, device: str = "auto", conditions: int = 0) -> Backbone:
    """The model of that alias, hub id or folder, float32, on "auto", "cpu", "cuda", "cuda:1" or "mps".

    `conditions`: how many latents its UNet reads beside the noisy one, 1 for InstructPix2Pix.
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
        backbone, problem = _try_load(source, device, conditions)
        if backbone is not None:
            return backbone
        failures.append(f"{source}: {problem}")
    raise UserError(
        f"model '{name}' could not be loaded ({'; '.join(failures)}). "
        "Give a folder with a diffusers pipeline, or --model tinyworld, which is in the package"
    )


def _try_load(source: str, device: str, conditions: int) -> tuple[Backbone | None, str]:
    """The model, or why it cannot be had; what the disk has only in part is fetched."""
    local, problem = on_disk(source), ""
    for only_local in (True, False) if local and not is_folder(source) else (local,):
        blocked = None if only_local else hub_problem(source)
        if blocked:
            return None, problem or blocked
        try:
            backbone = _load(source, device, only_local, conditions)
            backbone.source = source
            return backbone, ""
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        except (OSError, ValueError, TypeError, RuntimeError, OverflowError, SafetensorError) as error:  # missing or damaged
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None, problem


def _load(source: str, device: str, local: bool, conditions: int) -> Backbone:
    """Only the parts that score distillation needs: no safety checker, no image processor, safetensors alone."""
    from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel

    where = {"local_files_only": local}
    options = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False, **where}
    unet = _load_network(UNet2DConditionModel, source, "unet", **options)
    two = reads_pooled(unet)
    parts = {
        "unet": unet,
        "vae": _load_network(AutoencoderKL, source, "vae", **options),
        "scheduler": DDPMScheduler.from_pretrained(source, subfolder="scheduler", **where),
        **_load_text(source, two, where),
    }
    index = DiffusionPipeline.load_config(source, **where) if two else {}
    return assemble(parts, device, conditions, bool(index.get("force_zeros_for_empty_prompt", True)))


def _load_text(source: str, two: bool, where: dict[str, bool]) -> dict[str, Any]:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    options = {"dtype": torch.float32, **where}
    classes = {"text_encoder": CLIPTextModel} | ({"text_encoder_2": CLIPTextModelWithProjection} if two else {})
    encoders = {name: _load_network(cls, source, name, **options) for name, cls in classes.items()}
    names = [name.replace("text_encoder", "tokenizer") for name in classes]
    return {**encoders, **{name: CLIPTokenizer.from_pretrained(source, subfolder=name, **where) for name in names}}


def _load_network(cls: Any, source: str, part: str, **options: Any) -> Any:
    """One part with all of its weights; UserError where the libraries would go on with random ones."""
    network, report = cls.from_pretrained(source, subfolder=part, use_safetensors=True, output_loading_info=True, **options)
    if report["missing_keys"]:
        raise UserError(
            f"{part} lacks {len(report['missing_keys'])} weights of {cls.__name__}, {min(report['missing_keys'])} among them"
        )
    return network


def reads_pooled(unet: Any) -> bool:
    """Whether a UNet reads a second text encoder's pooled embedding, as SDXL's does; UserError if it wants anything else."""
    kind = getattr(unet.config, "addition_embed_type", None)
    if kind not in (None, "text_time"):
        raise UserError(f"this model wants '{kind}' beside a prompt's embedding, which is not supported")
    return kind == "text_time"


def assemble(parts: Mapping[str, Any], device: str, conditions: int = 0, zero_empty: bool = True) -> Backbone:
    """The backbone of components, by their names in diffusers; of the scheduler, of any class, only the noise schedule is read.

    `zero_empty`: whether a model with two text encoders was trained with zeros for an empty prompt.
    """
    from diffusers import DDPMScheduler

    two = reads_pooled(parts["unet"])
    suffixes = ("", "_2") if two else ("",)
    missing = [name + s for name in ("text_encoder", "tokenizer") for s in suffixes if parts.get(name + s) is None]
    if missing:
        raise UserError(f"this UNet needs {', '.join(missing)} beside it, which the pipeline does not have")
    encoders, tokenizers = ([parts[name + s] for s in suffixes] for name in ("text_encoder", "tokenizer"))
    text = PromptEncoder(encoders, tokenizers, two and zero_empty)
    scheduler = DDPMScheduler.from_config(parts["scheduler"].config)
    return Backbone(parts["unet"], parts["vae"], text, scheduler, device, conditions)
