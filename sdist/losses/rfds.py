"""Rectified flow distillation sampling. Yang et al. 2024, arXiv 2406.03293."""

from dataclasses import dataclass, replace

import torch

from ..diffusion import Latents, PerImage, per_image
from ..prediction import TARGET, Branch, Draw, Outputs, Prediction
from ..registry import LOSSES
from .base import Loss, Probe


@LOSSES.register("rfds")
@dataclass(frozen=True)
class RFDS(Loss):
    """w (V(z_s, y_tgt) - (noise - z)): SDS in terms of velocity. V is guided, noise - z what it would be if z were right.

    With `reverse` the noise is first replaced by the one that the network sees in z_s without guidance: RFDS-Rev.
    """

    guidance_scale: float = 50.0
    reverse: bool = False
    random_weight: bool = False  # w = sigmoid(u) with u ~ N(0, 1) for each draw, as the release has it; else w = 1

    @property
    def branches(self) -> tuple[Branch, ...]:
        return (TARGET.guided(self.guidance_scale),)

    @property
    def probed(self) -> tuple[Branch, ...]:
        return (TARGET,) if self.reverse else ()

    def prepare(self, draw: Draw, probe: Probe) -> tuple[Draw, Outputs | None]:
        return (replace(draw, noise=probe.predict(draw, [TARGET]).eps[TARGET]) if self.reverse else draw), None

    def gradient(self, p: Prediction) -> Latents:
        residual = p.velocity[self.branches[0]] - (p.draw.noise - p.latents)
        return per_image(self.weights(p)).to(residual) * residual

    def weights(self, p: Prediction) -> PerImage:
        if not self.random_weight:
            return torch.ones(len(p.latents))
        return torch.sigmoid(torch.cat([torch.randn(1, generator=key.generator("weight")) for key in p.draw.keys]))
