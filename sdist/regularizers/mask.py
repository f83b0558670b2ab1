"""Masks: where the gradient acts. The average is that of LUSD, Chinchuthakun et al. 2025, arXiv 2503.11054, section 3.3."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from ..diffusion import Latents, PerImage, per_image
from ..errors import UserError
from ..prediction import Prediction
from .base import Regularizer

Mask = Float[Tensor, "b 1 h w"]

SLACK = 1e-3  # by which rounding may leave 0..1


class MaskRegularizer(Regularizer):
    """g x mask. A method has at most one; its last mask, state.tensors["mask"], is what panel, log, studio and callbacks show."""

    reads: ClassVar[frozenset[str]] = frozenset({"mask"})

    @abstractmethod
    def mask(self, p: Prediction) -> Mask:
        """The mask of this step at the latents' resolution, in 0..1."""

    def __call__(self, gradient: Latents, p: Prediction) -> Latents:
        mask = self.checked(self.mask(p), p)
        p.state.tensor("mask", mask)[p.images] = mask
        return mask * gradient

    def checked(self, mask: Mask, p: Prediction) -> Mask:
        """The mask itself.

        Raises UserError for a shape that broadcasting would silently stretch, and, at an image's first step, for values beyond
        0..1: later a GPU would have to be waited for.
        """
        expected, name = (len(p.latents), 1, *p.latents.shape[-2:]), f"mask {type(self).__name__}"
        if mask.shape != expected:
            raise UserError(f"{name}: its shape is {tuple(mask.shape)}, expected {expected}")
        if any(key.step == 0 for key in p.draw.keys) and not (mask.min() > -SLACK and mask.max() < 1 + SLACK):
            raise UserError(f"{name}: its values are {mask.min():.3g}..{mask.max():.3g}, must be within 0..1; see unit_range")
        return mask

    def diagnostics(self, p: Prediction) -> dict[str, PerImage]:
        return {"mask_coverage": p.state.tensors["mask"][p.images].mean((1, 2, 3))}


@dataclass(frozen=True, kw_only=True)
class AveragedMask(MaskRegularizer):
    """beta M_k + 1 - beta, with M_k = (1 - momentum) M_{k-1} + momentum M and M_0 taken whole; beta rises linearly over the run.

    Where the newest map M comes from is what a subclass says.
    """

    momentum: float = 0.1  # weight of the newest map
    timing: Literal["current", "previous"] = "current"  # the map of this draw (paper) or of the last accepted one (release)
    beta: Literal["k/N", "k/(N-1)", "1"] = "k/N"  # paper, release; k = 0..N-1. 1: the average from the first step on
    user_mask: Literal["multiply", "replace"] = "multiply"  # what a mask image does to this mask

    def __post_init__(self) -> None:
        if not 0 < self.momentum <= 1:
            raise UserError(f"momentum of a mask must be within 0..1, not 0, got {self.momentum}")

    @abstractmethod
    def newest(self, p: Prediction) -> Mask:
        """The map of this draw at the latents' resolution, in 0..1."""

    def applies(self, p: Prediction) -> Bool[Tensor, " b"]:
        """Whether each row has a map at all; one that has none is not masked."""
        return torch.ones_like(p.images, dtype=torch.bool)

    def mask(self, p: Prediction) -> Mask:
        user = p.edit.mask
        average, known = self._average(p)
        beta = per_image(self._beta(p))
        blended = torch.where(known, beta * average + (1 - beta), torch.ones_like(average))
        if user is None:
            return blended
        if self.user_mask == "multiply":
            return user * blended
        return user if p.edit.masked is None else torch.where(per_image(p.edit.masked), user, blended)

    def diagnostics(self, p: Prediction) -> dict[str, PerImage]:
        return {"beta": self._beta(p), **super().diagnostics(p)}

    def _beta(self, p: Prediction) -> PerImage:
        """The weight of the average against ones at each row's step."""
        if self.beta == "1":
            return torch.ones_like(p.step, dtype=p.latents.dtype)
        last = p.steps if self.beta == "k/N" else max(1, p.steps - 1)
        return p.step.to(p.latents.dtype) / last

    def _average(self, p: Prediction) -> tuple[Mask, Bool[Tensor, "b 1 1 1"]]:
        """The moving average of each row, and whether it has one."""
        newest, applies = self.checked(self.newest(p), p), per_image(self.applies(p))
        if self.timing == "previous":
            held, is_held = p.state.tensor("held", newest), p.state.tensor("is_held", applies)
            previous, has_previous = held[p.images], is_held[p.images]
            held[p.images], is_held[p.images] = newest, applies
            newest, applies = previous, has_previous
        average, known = p.state.tensor("average", newest), p.state.tensor("known", applies)
        moved = (1 - self.momentum) * average[p.images] + self.momentum * newest
        average[p.images] = torch.where(known[p.images], moved, newest)
        known[p.images] = applies
        return average[p.images], applies


def resize(raw: Mask, like: Float[Tensor, "b c height width"]) -> Float[Tensor, "b 1 height width"]:
    return F.interpolate(raw, like.shape[-2:], mode="bicubic")


def unit_range(raw: Float[Tensor, "b n h w"]) -> Float[Tensor, "b n h w"]:
    """Each map shifted and scaled to 0..1; a constant map becomes 0."""
    low, high = raw.amin((2, 3), keepdim=True), raw.amax((2, 3), keepdim=True)
    span = high - low
    return ((raw - low) / torch.where(span > 0, span, torch.ones_like(span))).clamp(0, 1)
