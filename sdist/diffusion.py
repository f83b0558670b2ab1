"""Pure diffusion maths: z_t = alpha x + sigma noise, and what a network says of z_t as the pair (eps, clean).

A variance-preserving schedule has alpha^2 + sigma^2 = 1, a flow (rectified flow, arXiv 2209.03003) alpha + sigma = 1. A flow at
s = sigma / (alpha + sigma) is what every model is up to a factor: z_t / (alpha + sigma) = (1 - s) x + s noise.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Real, Shaped
from torch import Tensor

Latents = Float[Tensor, "b c h w"]
PerImage = Float[Tensor, " b"]
OutputKind = Literal["epsilon", "v_prediction", "flow"]  # the noise; alpha noise - sigma x; noise - x
EstimateKind = Literal["epsilon", "v_prediction", "flow", "clean"]  # of a network, or the image itself


def per_image(values: Shaped[Tensor, " b"]) -> Shaped[Tensor, "b 1 1 1"]:
    """One value per image, shaped to multiply latents."""
    return values[:, None, None, None]


def discrete_scales(alphas_cumprod: Float[Tensor, " steps"], t: Real[Tensor, " b"]) -> tuple[PerImage, PerImage]:
    """alpha = sqrt(alpha_bar_t) and sigma = sqrt(1 - alpha_bar_t); alpha_bar is linear between two timesteps of the schedule."""
    if t.is_floating_point():
        low = t.floor().long()
        high = (low + 1).clamp(max=len(alphas_cumprod) - 1)
        alpha_bar = torch.lerp(alphas_cumprod[low], alphas_cumprod[high], (t - low).to(alphas_cumprod))
    else:
        alpha_bar = alphas_cumprod[t]
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def flow_scales(t: Real[Tensor, " b"]) -> tuple[PerImage, PerImage]:
    """alpha = 1 - s and sigma = s of a flow whose noise level s is t / 1000."""
    s = t / 1000
    return 1 - s, s


def flow_level(alpha: PerImage, sigma: PerImage) -> PerImage:
    """The noise level s of a flow that these scales are, up to a factor."""
    return sigma / (alpha + sigma)


def add_noise(z: Latents, noise: Latents, alpha: PerImage, sigma: PerImage) -> Latents:
    """z_t = alpha z + sigma noise (DDPM, arXiv 2006.11239, eq. 4)."""
    return per_image(alpha) * z + per_image(sigma) * noise


@dataclass(frozen=True)
class Estimate:
    """What a network takes z_t to be made of: alpha clean + sigma eps = z_t. Each part is computed when it is read.

    Velocity predictions and flows are exact at every level, also where alpha is 0. There the noise alone, which an epsilon model
    predicts, says nothing of the image: its `clean` is infinite at alpha = 0 and ill-conditioned near it.
    """

    output: Latents  # float32, as the network gave it
    z_t: Latents
    alpha: PerImage
    sigma: PerImage
    kind: EstimateKind

    @property
    def eps(self) -> Latents:
        """The noise. Of v: alpha v + sigma z_t (progressive distillation, arXiv 2202.00512, appendix D)."""
        if self.kind == "epsilon":
            return self.output
        if self.kind == "clean":
            return (self.z_t - per_image(self.alpha) * self.output) / per_image(self.sigma)
        rest = self.z_t if self.kind == "flow" else per_image(self.sigma) * self.z_t
        return per_image(self.alpha) * self.output + rest

    @property
    def clean(self) -> Latents:
        """The image without noise, also called the x0-prediction."""
        if self.kind == "clean":
            return self.output
        without = per_image(self.sigma) * self.output
        if self.kind == "epsilon":
            return (self.z_t - without) / per_image(self.alpha)
        return (self.z_t if self.kind == "flow" else per_image(self.alpha) * self.z_t) - without

    @property
    def velocity(self) -> Latents:
        """eps - clean: noise minus data, the same quantity for every kind of model."""
        return self.output if self.kind == "flow" else self.eps - self.clean

    def with_clean(self, clean: Latents) -> "Estimate":
        """Another image in the same z_t, with the noise that goes with it."""
        return replace(self, output=clean, kind="clean")

    def guided(self, null: "Estimate", scale: float) -> "Estimate":
        """Classifier-free guidance of this conditional estimate by that of the null prompt for the same z_t."""
        return replace(self, output=cfg(null.output, self.output, scale))

    def __getitem__(self, rows: slice | Tensor) -> "Estimate":
        """The same for some rows."""
        return Estimate(self.output[rows], self.z_t[rows], self.alpha[rows], self.sigma[rows], self.kind)


def cfg(uncond: Latents, cond: Latents, scale: float) -> Latents:
    """uncond + scale (cond - uncond): scale 1 is the conditional prediction (arXiv 2207.12598; papers' w is scale - 1)."""
    return uncond + scale * (cond - uncond)


def size_of(z: Latents) -> tuple[int, int]:
    """Height and width."""
    return z.shape[-2], z.shape[-1]


def std(x: Latents) -> PerImage:
    """Unbiased standard deviation over all elements of each image."""
    return x.flatten(1).std(dim=1)
