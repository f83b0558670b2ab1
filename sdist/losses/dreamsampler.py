"""DreamSampler, a sampler whose every step distills. Kim et al. 2024, arXiv 2403.11415."""

from dataclasses import dataclass, replace

import torch

from ..diffusion import Latents, per_image
from ..errors import UserError
from ..prediction import NULL, TARGET, Branch, Draw, Outputs, Prediction
from ..registry import LOSSES
from .base import Loss, Probe
from .ism import inverted_to


@LOSSES.register("dreamsampler")
@dataclass(frozen=True)
class DreamSampler(Loss):
    """z - N - w (T - N), with N = clean(z_t, null), T = clean(z_t, y_tgt) and w = guidance_scale alpha_bar, on a DDIM inversion.

    A step of length 1, which the method is made for, ends at the least of (1 - w) |x - N|^2 + w |x - T|^2, and keeps the null
    prompt's noise for the next level. The inversion, without a prompt, goes up to the first timestep in as many steps as the run
    has, evenly and to whole timesteps before the last: the run's own levels where timesteps are `descending`, by default.
    """

    guidance_scale: float = 0.2

    def __post_init__(self) -> None:
        if self.guidance_scale < 0:
            raise UserError(f"loss dreamsampler: guidance_scale must be at least 0, got {self.guidance_scale:g}")

    @property
    def branches(self) -> tuple[Branch, ...]:
        return TARGET, NULL

    @property
    def walks(self) -> bool:
        return True

    @property
    def probed(self) -> tuple[Branch, ...]:
        return (NULL,)

    def prepare(self, draw: Draw, probe: Probe) -> tuple[Draw, Outputs | None]:
        noise = probe.state.tensor("noise", draw.noise)[probe.progress.images]
        first = (probe.progress.step == 0).nonzero()[:, 0]
        if len(first):
            noise[first] = _inverted(draw.narrow(first), probe.narrow(first)).noise
        return replace(draw, noise=noise), None

    def gradient(self, p: Prediction) -> Latents:
        null, target = p.clean[NULL], p.clean[TARGET]
        alpha_bar = p.draw.alpha**2 / (p.draw.alpha**2 + p.draw.sigma**2)
        return p.latents - null - self.guidance_scale * per_image(alpha_bar) * (target - null)

    def accepted(self, gradient: Latents, p: Prediction) -> None:
        p.state.tensor("noise", gradient)[p.images] = p.eps[NULL]


def _inverted(draw: Draw, probe: Probe) -> Draw:
    """From the latents themselves at timestep 0 to the draw's, in as many steps as the run has."""
    steps, at = probe.progress.steps, replace(probe.at(draw, torch.zeros_like(draw.t)), noise=torch.zeros_like(draw.noise))
    for t in (*((draw.t * (k / steps)).round().to(draw.t.dtype) for k in range(1, steps)), draw.t):
        at, _ = inverted_to(at, t, probe)
    return at
