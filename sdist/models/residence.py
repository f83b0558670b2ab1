"""Where a model's networks stand while they work and while they wait, so that a GPU with little memory suffices.

Offloading changes no result. Layers and their groups are moved, and weights in fp8 are widened, by hooks of diffusers.
"""

import logging
import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn

from ..extras import need
from .memory import GIB, cuda_free_bytes, release

log = logging.getLogger("sdist")

Offload = Literal["auto", "none", "model", "group"]
Storage = Literal["same", "fp8"]
FP8 = torch.float8_e4m3fn
CPU = torch.device("cpu")
ROOM = 2 * GIB  # beside weights, for what an edit computes


class Residence:
    """The denoiser and the other networks of a model on their device.

    "none": the denoiser and the autoencoder stay there. "model": only those that work are there. "group": the denoiser's layers
    come and go one by one. Text encoders come when they are needed in any case.
    """

    def __init__(self, denoiser: Any, vae: nn.Module, encoders: Iterable[nn.Module], device: torch.device) -> None:
        self.denoiser, self.vae, self.encoders, self.device = denoiser, vae, tuple(encoders), device
        self.offload: Offload = "none"
        self.storage: Storage = "same"
        self._is_auto = self._is_finished = False  # whether offloading is decided here; whether the denoiser is as it computes

    def place(self, offload: Offload, storage: Storage, dtype: torch.dtype) -> None:
        """Decides where networks stand, with the denoiser in that format, and moves those to the device that stay there whole."""
        self.storage, self._is_auto = storage, offload == "auto"
        self.offload = offload
        self.fit(dtype)

    def fit(self, dtype: torch.dtype) -> None:
        """The denoiser will be in that format: where offloading was left open it is decided, again if that changes."""
        if self._is_auto:
            self.offload = self._suited(FP8 if self.storage == "fp8" else dtype)
        if self.offload == "group":
            need("--offload group", "accelerate", extra="offload")
        if self.offload != "model":
            nn.Module.to(self.vae, self.device)
        if self.offload != "none":
            nn.Module.to(self.denoiser, CPU)
            release(self.device)
        elif self.storage == "same" and self._dtype.itemsize <= dtype.itemsize:  # else it comes when it is narrow
            nn.Module.to(self.denoiser, self.device)

    def finish(self, dtype: torch.dtype) -> None:
        """When the denoiser is in the format that it computes in: narrows its storage, and hooks its layers, if so decided."""
        if self.storage == "fp8":
            self.denoiser.enable_layerwise_casting(storage_dtype=FP8, compute_dtype=dtype)
        if self.offload == "group":
            streams = self.device.type == "cuda"  # the next layer comes while one computes
            self.denoiser.enable_group_offload(self.device, CPU, offload_type="leaf_level", use_stream=streams)
        elif self.offload == "none":
            nn.Module.to(self.denoiser, self.device)
        self._is_finished = True

    @property
    def takes_turns(self) -> bool:
        """Whether a network that comes to the device sends the others away."""
        return self.offload == "model"

    def onload(self, *networks: nn.Module) -> None:
        """These are about to work: where only those that do are on the device, they come there and the others leave."""
        if not self.takes_turns or not self._is_finished or all(is_on(network, self.device) for network in networks):
            return
        for network in (self.denoiser, self.vae, *self.encoders):
            if network not in networks:
                nn.Module.to(network, CPU)
        release(self.device)
        for network in networks:
            nn.Module.to(network, self.device)

    @property
    def _dtype(self) -> torch.dtype:
        """Of the denoiser now."""
        return next(self.denoiser.parameters()).dtype

    def _suited(self, dtype: torch.dtype) -> Offload:
        """What fits, with the denoiser in that format."""
        here = sum(bytes_of(network) for network in (self.denoiser, self.vae) if is_on(network, self.device))
        return suited_offload(count(self.denoiser) * dtype.itemsize, bytes_of(self.vae), room(self.device) + here)


def room(device: torch.device) -> float:
    """Bytes that are free for networks; without end where nothing has to leave the device."""
    return cuda_free_bytes(device) if device.type == "cuda" else math.inf


def suited_offload(denoiser: int, vae: int, free: float) -> Offload:
    """The least that has to be moved for networks of so many bytes, if so many are free."""
    if denoiser + vae + ROOM <= free:
        return "none"
    chosen: Offload = "model" if max(denoiser, vae) + ROOM <= free else "group"
    log.info("%.1f GiB are free: --offload %s", free / GIB, chosen)
    return chosen


def count(network: nn.Module) -> int:
    """Of weights."""
    return sum(weight.numel() for weight in network.parameters())


def bytes_of(network: nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in network.parameters())


def is_on(network: nn.Module, device: torch.device) -> bool:
    """Whether its weights are there."""
    at = next(network.parameters()).device
    return at.type == device.type and device.index in (None, at.index)
