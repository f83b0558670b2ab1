"""Interval Score Matching. Liang et al. 2023, LucidDreamer, arXiv 2311.11284."""

from dataclasses import dataclass, replace
from math import ceil

import torch
from jaxtyping import Real
from torch import Tensor

from ..diffusion import Latents, per_image
from ..errors import UserError
from ..prediction import NULL, TARGET, Branch, Draw, Outputs, Prediction
from ..registry import LOSSES
from .base import Loss, Probe


@LOSSES.register("ism")
@dataclass(frozen=True)
class ISM(Loss):
    """sigma / alpha (eps_cfg(z_t, y_tgt) - eps(z_s, null)), s = t - interval, both latents by DDIM inversion without a prompt.

    The inversion of z, noised to timestep 0, goes up to s in strides and from there to t in one.
    """

    guidance_scale: float = 7.5  # uncond + scale (cond - uncond)
    interval: int = 80  # timesteps from s to t
    stride: int = 200  # timesteps, on the way to s

    def __post_init__(self) -> None:
        if self.interval < 0 or self.stride < 1:
            raise UserError(f"loss ism: interval must be at least 0 and stride at least 1, got {self.interval} and {self.stride}")

    @property
    def branches(self) -> tuple[Branch, ...]:
        return (TARGET.guided(self.guidance_scale),)

    @property
    def probed(self) -> tuple[Branch, ...]:
        return (NULL,)

    def prepare(self, draw: Draw, probe: Probe) -> tuple[Draw, Outputs | None]:
        s = (draw.t - self.interval).clamp(min=0)
        inverted = probe.at(draw, torch.zeros_like(s))
        for end in range(self.stride, ceil(s.max()) + self.stride, self.stride):
            inverted, _ = inverted_to(inverted, s.clamp(max=end), probe)
        return inverted_to(inverted, draw.t, probe)

    def gradient(self, p: Prediction) -> Latents:
        assert p.earlier is not None
        interval = p.eps[self.branches[0]] - p.earlier.eps[NULL]
        return per_image(p.draw.sigma / p.draw.alpha) * interval


def inverted_to(draw: Draw, t: Real[Tensor, " b"], probe: Probe) -> tuple[Draw, Outputs]:
    """A DDIM step up to t, and the predictions that it was made of.

    It is said by the noise that gives its latents: alpha z + sigma noise = alpha clean + sigma eps.
    """
    p, up = probe.predict(draw, [NULL]), probe.at(draw, t)
    noise = p.eps[NULL] + per_image(up.alpha / up.sigma) * (p.clean[NULL] - p.latents)
    return replace(up, noise=torch.where(per_image(t > draw.t), noise, draw.noise)), p.outputs
