"""Stable Diffusion whose UNet reads an image beside the noisy latents: InstructPix2Pix, Brooks et al. 2022, arXiv 2211.09800."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion import Latents
from ..registry import FAMILIES
from .stable_diffusion import StableDiffusion


@FAMILIES.register("instruct_pix2pix")
class InstructPix2Pix(StableDiffusion):
    """`estimate` gets noisy latents with an image's latents, or zeros, behind them along the channels."""

    @classmethod
    def matches(cls, config: Mapping[str, Any]) -> bool:
        return super().matches(config) and config.get("in_channels") == 2 * config.get("out_channels", 0)

    @torch.no_grad()
    def condition(self, pixels: Float[Tensor, "b 3 height width"]) -> Latents:
        """The latents of images as the UNet reads them: the mean of the posterior without the factor of the noisy ones."""
        return self.to_vae(self.encode(pixels))
