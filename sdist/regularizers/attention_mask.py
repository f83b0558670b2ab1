"""The attention mask. LUSD, Chinchuthakun et al. 2025, arXiv 2503.11054, section 3.3."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..diffusion import Latents, PerImage, per_image
from ..errors import UserError
from ..hooks.attention import AttentionRecorder
from ..prediction import TARGET, Prediction, Recorder
from ..registry import REGULARIZERS
from .base import Memory, Regularizer

Mask = Float[Tensor, "b 1 h w"]


@REGULARIZERS.register("attention_mask")
@dataclass(frozen=True)
class AttentionMask(Regularizer):
    """g x (beta M_k + 1 - beta), with M_k = (1 - momentum) M_{k-1} + momentum M and M_0 taken whole.

    M is the cross-attention of the noun tokens refined by self-attention, resized to the latents and scaled to 0..1.
    beta rises linearly over the run. An image without noun tokens is not masked.
    """

    cross_level: int = 2  # cross-attention at 1 / 2^level of the latent's side: 16 x 16 of 64 x 64 on SD 1.5
    self_level: int = 1  # self-attention at 1 / 2^level: 32 x 32 of 64 x 64 on SD 1.5
    momentum: float = 0.1  # weight of the newest map
    timing: Literal["current", "previous"] = "current"  # attention of this forward (paper) or of the last accepted (release)
    beta: Literal["k/N", "k/(N-1)"] = "k/N"  # paper, release; k = 0..N-1
    user_mask: Literal["multiply", "replace"] = "multiply"  # what a mask image does to the attention mask

    def __post_init__(self) -> None:
        if not 0 < self.momentum <= 1:
            raise UserError(f"regularizer attention_mask: momentum must be within 0..1, not 0, got {self.momentum}")

    @property
    def recorders(self) -> tuple[Recorder, ...]:
        return (self._recorder,)

    @property
    def _recorder(self) -> AttentionRecorder:
        return AttentionRecorder(TARGET, self.cross_level, self.self_level)

    def __call__(self, gradient: Latents, p: Prediction, memory: Memory) -> Latents:
        mask = self.mask(p, memory)
        memory.tensor("mask", mask)[p.slots] = mask
        return mask * gradient

    def diagnostics(self, p: Prediction, memory: Memory) -> dict[str, PerImage]:
        return {"beta": beta_schedule(self.beta, p), "mask_coverage": memory.tensors["mask"][p.slots].mean((1, 2, 3))}

    def mask(self, p: Prediction, memory: Memory) -> Mask:
        """The mask of this step at the latents' resolution, in 0..1; moves the average on."""
        user = p.edit.mask
        if user is not None and self.user_mask == "replace":
            return user
        average, known = self._average(p, memory)
        beta = per_image(beta_schedule(self.beta, p))
        blended = torch.where(known, beta * average + (1 - beta), torch.ones_like(average))
        return blended if user is None else user * blended

    def _average(self, p: Prediction, memory: Memory) -> tuple[Mask, Tensor]:
        """The moving average of each row, and whether it has one."""
        newest = unit_range(resize(p.recorded[self._recorder].refined(p.edit.focus), p.latents))
        focused = per_image(p.edit.focus.any(1))
        if self.timing == "previous":
            held, is_held = memory.tensor("held", newest), memory.tensor("is_held", focused)
            previous, has_previous = held[p.slots], is_held[p.slots]
            held[p.slots], is_held[p.slots] = newest, focused
            newest, focused = previous, has_previous
        average, known = memory.tensor("average", newest), memory.tensor("known", focused)
        moved = (1 - self.momentum) * average[p.slots] + self.momentum * newest
        average[p.slots] = torch.where(known[p.slots], moved, newest)
        known[p.slots] = focused
        return average[p.slots], focused


def beta_schedule(name: str, p: Prediction) -> Float[Tensor, " b"]:
    """The weight of the mask against ones at each row's step."""
    last = p.steps if name == "k/N" else max(1, p.steps - 1)
    return p.step.to(p.latents.dtype) / last


def resize(raw: Mask, like: Tensor) -> Mask:
    return F.interpolate(raw, like.shape[-2:], mode="bicubic")


def unit_range(raw: Mask) -> Mask:
    """Each map shifted and scaled to 0..1; a constant map becomes 0."""
    low, high = raw.amin((1, 2, 3), keepdim=True), raw.amax((1, 2, 3), keepdim=True)
    span = high - low
    return ((raw - low) / torch.where(span > 0, span, torch.ones_like(span))).clamp(0, 1)
