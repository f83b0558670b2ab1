"""Identity-preserving Distillation Sampling. Kim et al. 2025, arXiv 2502.19930."""

from dataclasses import dataclass, replace

import torch

from ..diffusion import Latents, per_image
from ..errors import UserError
from ..prediction import SOURCE_SOURCE, Branch, Draw, Outputs, Prediction
from ..registry import LOSSES
from .base import Loss, Probe
from .dds import DDS


@LOSSES.register("ids")
@dataclass(frozen=True)
class IDS(Loss):
    """DDS with a corrected noise, the same in both branches, in which the source prompt sees the source better (eqs. 6 to 9).

    Each of a few steps moves z_src_t against the gradient of the norm of z_src - clean_cfg(z_src_t, y_src), by `rate`
    sqrt(elements) times that. The noise is what then lies between z_src_t and z_src.
    """

    guidance_scale: float = 7.5  # uncond + scale (cond - uncond), of all predictions
    iterations: int = 3  # N, each a network call of the source branch that is differentiated through
    rate: float = 1 / 128  # of each element: lambda = 1 for 64 x 64 latents of 4 channels

    def __post_init__(self) -> None:
        if self.iterations < 0 or self.rate < 0:
            raise UserError(f"loss ids: iterations and rate must be at least 0, got {self.iterations} and {self.rate:g}")

    @property
    def branches(self) -> tuple[Branch, ...]:
        return self._dds.branches

    @property
    def differentiates(self) -> bool:
        return self.iterations > 0

    @property
    def probed(self) -> tuple[Branch, ...]:
        return (SOURCE_SOURCE.guided(self.guidance_scale),) if self.iterations else ()

    @property
    def _dds(self) -> DDS:
        return DDS(self.guidance_scale)

    def prepare(self, draw: Draw, probe: Probe) -> tuple[Draw, Outputs | None]:
        for _ in range(self.iterations):
            draw = replace(draw, noise=draw.noise - self._step(draw, probe))
        return draw, None

    def _step(self, draw: Draw, probe: Probe) -> Latents:
        """By how much the noise changes: z_src_t by sigma times that, and d/dz_src_t is d/dnoise / sigma."""
        with torch.enable_grad():
            noise = draw.noise.detach().requires_grad_()
            clean = probe.predict(replace(draw, noise=noise), self.probed).clean[self.probed[0]]
            (slope,) = torch.autograd.grad((probe.edit.source - clean).flatten(1).norm(dim=1).sum(), noise)
        return self.rate * noise[0].numel() ** 0.5 * slope / per_image(draw.sigma) ** 2

    def gradient(self, p: Prediction) -> Latents:
        return self._dds.gradient(p)
