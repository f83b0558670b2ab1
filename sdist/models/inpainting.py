"""Stable Diffusion whose UNet reads a mask and the image without what is masked beside the noisy latents.

Rombach et al. 2022, arXiv 2112.10752, section 4.5.
"""

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..diffusion import Latents, size_of
from ..registry import FAMILIES
from .base import check_widths
from .stable_diffusion import StableDiffusion, check_inputs
from .stable_diffusion_xl import StableDiffusionXL


class Inpainting(StableDiffusion, ABC):
    """`estimate` gets noisy latents with `condition` behind them along the channels."""

    inpaints: ClassVar[bool] = True

    @classmethod
    def matches(cls, config: Mapping[str, Any]) -> bool:
        return super().matches(config) and config.get("in_channels") == 2 * config.get("out_channels", 0) + 1

    def check(self) -> None:
        check_inputs(self.denoiser)
        reads = self.denoiser.config.in_channels
        check_widths("inpainting model", "UNet", self.widths() | {"latent channels": (reads, 2 * self.channels + 1)})

    @torch.no_grad()
    def condition(
        self, pixels: Float[Tensor, "b 3 height width"], mask: Float[Tensor, "b 1 height width"]
    ) -> Float[Tensor, "b _ h w"]:
        """The mask, 1 where the edit may happen and else 0, and the latents of the image with grey in its place."""
        hole = (mask >= 0.5).to(pixels)
        kept = self.encode(pixels * (1 - hole))
        return torch.cat([F.interpolate(hole.to(kept), size_of(kept)), kept], 1)

    def with_condition(self, z_t: Latents) -> Float[Tensor, "b _ h w"]:
        """Noisy latents as the UNet reads them where all of the image may change."""
        return torch.cat([z_t, torch.ones_like(z_t[:, :1]), torch.zeros_like(z_t)], 1)


@FAMILIES.register("inpainting")
class StableDiffusionInpainting(Inpainting):
    """Stable Diffusion 1 and 2."""


@FAMILIES.register("inpainting_xl")
class StableDiffusionXLInpainting(Inpainting, StableDiffusionXL):
    """Stable Diffusion XL."""
