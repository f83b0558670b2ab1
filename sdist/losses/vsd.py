"""Variational Score Distillation. Wang et al. 2023, ProlificDreamer, arXiv 2305.16213."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..diffusion import Latents, per_image
from ..errors import UserError
from ..hooks.low_rank import LowRank, projections
from ..prediction import TARGET, Branch, Draw, Outputs, Prediction
from ..registry import LOSSES
from .base import Loss, Probe, Weighting, weight

BETAS, EPS = (0.9, 0.999), 1e-8  # of Adam (arXiv 1412.6980, algorithm 1)
MOMENTS = ("mean", "square")  # its m and v


@dataclass(frozen=True)
class Slope:
    """Of each image's LoRA loss at its draw, and the LoRA that it is taken at."""

    values: Float[Tensor, "b n"]
    at: Float[Tensor, "b n"]

    def narrow(self, rows: Int[Tensor, " m"]) -> "Slope":
        return Slope(self.values[rows], self.at[rows])


@LOSSES.register("vsd")
@dataclass(frozen=True)
class VSD(Loss):
    """w(t) (eps_cfg(z_t, y_tgt) - eps_lora(z_t, y_tgt)): SDS whose noise is predicted by a LoRA trained on the edited image.

    Every image has a LoRA of its own, of all projections of attention. It begins without an effect; after each step Adam moves it
    against the gradient of |eps_lora(z_t, y_tgt) - noise|^2 at the step's draw. The network's weights stay as they are.
    """

    guidance_scale: float = 7.5  # uncond + scale (cond - uncond); none for the LoRA
    weighting: Weighting = "sigma2"  # w(t)
    rank: int = 4
    lr: float = 1e-4  # of the LoRA

    def __post_init__(self) -> None:
        if self.rank < 1 or self.lr < 0:
            raise UserError(f"loss vsd: rank must be at least 1 and lr at least 0, got {self.rank} and {self.lr:g}")

    @property
    def branches(self) -> tuple[Branch, ...]:
        return (TARGET.guided(self.guidance_scale),)

    @property
    def differentiates(self) -> bool:
        return True

    @property
    def probed(self) -> tuple[Branch, ...]:
        return (TARGET,)

    def prepare(self, draw: Draw, probe: Probe) -> tuple[Draw, Outputs | None]:
        with torch.enable_grad():
            lora = self._lora(draw, probe)
            outputs = probe.predict(draw, self.probed, [lora]).outputs
            (slope,) = torch.autograd.grad((outputs.eps[TARGET] - draw.noise).square().sum(), lora.values)
        for name in MOMENTS:  # here, where an allocation that fails is tried again with fewer draws
            probe.state.rows(name, probe.progress.images, slope)
        estimate = outputs[TARGET]
        slopes = Slope(slope, lora.values.detach())
        return draw, Outputs({TARGET: replace(estimate, output=estimate.output.detach())}, {lora: slopes})

    def _lora(self, draw: Draw, probe: Probe) -> LowRank:
        """That of each image; at its first step, as a draw's key has it begin."""
        layers, (images, step, _) = projections(probe.network), probe.progress
        like = draw.noise.new_empty(0, LowRank.count(layers, self.rank))
        values = probe.state.rows("values", images, like)
        for row in (step == 0).nonzero()[:, 0].tolist():
            key = replace(draw.keys[row], attempt=0, sample=0)
            values[row] = LowRank.start(layers, self.rank, key.generator("lora")).to(values)
        return LowRank(layers, self.rank, values.requires_grad_())

    def gradient(self, p: Prediction) -> Latents:
        """NaN for an image whose LoRA's slope is not finite, which ends it before Adam takes that in."""
        assert p.earlier is not None
        gradient = weight(self.weighting, p.draw) * (p.eps[self.branches[0]] - p.earlier.eps[TARGET])
        return torch.where(per_image(_slope(p).values.isfinite().all(1)), gradient, torch.nan)

    def causes(self, p: Prediction) -> dict[str, Bool[Tensor, " b"]]:
        return {"the gradient of vsd's LoRA is not finite; use --precision fp32": _slope(p).values.isfinite().all(1)}

    def accepted(self, gradient: Latents, p: Prediction) -> None:
        """A step of Adam for each LoRA."""
        slope, at = _slope(p).values, _slope(p).at
        mean, square = (p.state.rows(name, p.images, slope) for name in MOMENTS)
        mean, square = torch.lerp(slope, mean, BETAS[0]), torch.lerp(slope**2, square, BETAS[1])
        count = p.step[:, None] + 1
        m, v = mean / (1 - BETAS[0] ** count), square / (1 - BETAS[1] ** count)
        values = at - self.lr * m / (v.sqrt() + EPS)
        for name, rows in zip((*MOMENTS, "values"), (mean, square, values), strict=True):
            p.state.keep(name, p.images, rows)


def _slope(p: Prediction) -> Slope:
    assert p.earlier is not None
    (slope,) = p.earlier.recorded.values()
    return slope
