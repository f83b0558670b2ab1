"""Normalizers give the regularized gradient a known size, image by image."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from .diffusion import Latents, per_image, std
from .registry import NORMALIZERS


class Normalizer(ABC):
    """A frozen dataclass whose fields are its configuration."""

    @abstractmethod
    def __call__(self, gradient: Latents) -> Latents:
        """The normalized gradient; rows do not influence each other."""


@NORMALIZERS.register("unit_std")
@dataclass(frozen=True)
class UnitStd(Normalizer):
    """g / SD(g), over all elements of each image (LUSD, arXiv 2503.11054, eq. 4); a constant gradient is left as it is."""

    def __call__(self, gradient: Latents) -> Latents:
        sd = std(gradient)
        return gradient / per_image(torch.where(sd > 0, sd, torch.ones_like(sd)))
