"""The networks of a pipeline as a backbone for the time of a run; what is done to them is undone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..config.settings import Settings
from ..editors.loading import adapt
from ..models.added_files import digests
from ..models.base import Backbone
from ..models.catalogue import find_model
from ..models.kinds import family_of
from ..models.loading import assemble
from ..models.memory import allocating
from ..models.text import text_format
from ..models.wrappers import check_hooks, plain, storage_formats, unwrapped

MODES = ("training", "gradient_checkpointing")  # attributes of modules that a run may change


@contextmanager
def as_backbone(parts: Mapping[str, Any], settings: Settings, options: Mapping[str, Any]) -> Iterator[Backbone]:
    """The backbone of components by their names in diffusers, as the settings load one from disk.

    Raises UserError for networks that are moved by hooks; see `assemble` and `adapt` for others.
    """
    parts = {name: unwrapped(part) for name, part in parts.items()}
    named = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    check_hooks(named)
    networks, stored = networks_of(parts), storage_formats(named)
    with plain(networks), restoring_state(*networks):
        denoiser = family_of(parts).denoiser_name  # which runs in the format that it has
        dtype = next(named[denoiser].parameters()).dtype
        with allocating(settings.device, "the model"):
            for name, part in named.items():
                if name != denoiser and part.dtype != text_format(type(part), dtype):
                    nn.Module.to(part, torch.float32)  # in which no digit is lost
            backbone = assemble(parts, settings.device, options, settings.editor.conditions)
        backbone.name = backbone.source = settings.model
        backbone.scale = find_model(settings.model, settings.model_config).scale
        backbone.stored_formats, backbone.added = stored, digests(settings.load_options)
        yield adapt(backbone, settings)


def networks_of(parts: Mapping[str, Any]) -> list[nn.Module]:
    return [part for part in parts.values() if isinstance(part, nn.Module)]


@contextmanager
def restoring_state(*networks: nn.Module) -> Iterator[None]:
    """After the block the networks are as before: number format, memory layout, device, mode, what requires a gradient.

    Values stay as they are in the block: a wider format there costs no digit. Buffers go back, too.
    """
    modules = [module for network in networks for module in network.modules()]
    modes = [(module, name, vars(module)[name]) for module in modules for name in MODES if name in vars(module)]
    layouts = [(p, p.dtype, p.device, p.stride(), p.requires_grad) for network in networks for p in network.parameters()]
    buffers = [(module, name, buffer) for module in modules for name, buffer in module.named_buffers(recurse=False)]
    try:
        yield
    finally:
        for module, name, value in modes:
            setattr(module, name, value)
        for p, dtype, device, stride, requires_grad in layouts:
            if (p.dtype, p.device, p.stride()) != (dtype, device, stride):
                p.data = torch.empty_strided(p.shape, stride, dtype=dtype, device=device).copy_(p.data)
            p.requires_grad_(requires_grad)
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
