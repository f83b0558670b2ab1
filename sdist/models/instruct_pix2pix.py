"""Stable Diffusion whose UNet reads an image beside the noisy latents: InstructPix2Pix, Brooks et al. 2022, arXiv 2211.09800."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Real
from torch import Tensor

from ..diffusion import Estimate, Latents, size_of
from ..prediction import Text
from ..registry import FAMILIES
from .stable_diffusion import StableDiffusion


@FAMILIES.register("instruct_pix2pix")
class InstructPix2Pix(StableDiffusion):
    """`estimate` gets noisy latents with an image's latents, or zeros, behind them along the channels, and says what is noise in
    the first half.
    """

    @classmethod
    def matches(cls, config: Mapping[str, Any]) -> bool:
        return super().matches(config) and config.get("in_channels") == 2 * config.get("out_channels", 0)

    @torch.no_grad()
    def condition(self, pixels: Float[Tensor, "b 3 height width"]) -> Latents:
        """The latents of images as the UNet reads them: the mean of the posterior without the factor of the noisy ones."""
        return self.to_vae(self.encode(pixels))

    def estimate(
        self,
        z_t: Float[Tensor, "n both h w"],
        t: Real[Tensor, " n"],
        text: Text,
        guidance: Float[Tensor, " n"] | None = None,
    ) -> Estimate:
        """What the noisy half of each row is made of, in float32."""
        dtype = next(self.denoiser.parameters()).dtype
        out = self.denoise(z_t.to(dtype, memory_format=self.format), t, text.to(dtype), guidance)
        return Estimate(out.float().contiguous(), z_t[:, : self.channels], *self.scales(t, size_of(z_t)), self.prediction_type)

    def denoise(
        self, z_t: Float[Tensor, "n both h w"], t: Real[Tensor, " n"], text: Text, guidance: Float[Tensor, " n"] | None
    ) -> Float[Tensor, "n c h w"]:
        return self.forward(z_t, t, encoder_hidden_states=text.tokens)
