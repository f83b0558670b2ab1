"""The user's mask, for a method that has no other."""

from dataclasses import dataclass

import torch

from ..prediction import Prediction
from ..registry import REGULARIZERS
from .mask import Mask, MaskRegularizer


@REGULARIZERS.register("user_mask")
@dataclass(frozen=True)
class UserMask(MaskRegularizer):
    """The mask image, averaged over each latent; all ones without one.

    A method without a mask gets it in front of its other regularizers as soon as a mask image is given.
    """

    def mask(self, p: Prediction) -> Mask:
        return torch.ones_like(p.latents[:, :1]) if p.edit.mask is None else p.edit.mask
