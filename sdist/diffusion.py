"""Pure diffusion maths. alpha_bar is the cumulative product, alpha and sigma its roots: z_t = alpha z + sigma noise."""

from jaxtyping import Float, Int
from torch import Tensor

Latents = Float[Tensor, "b c h w"]
PerImage = Float[Tensor, " b"]


def per_image(values: PerImage) -> Float[Tensor, "b 1 1 1"]:
    """One value an image, shaped to multiply latents."""
    return values[:, None, None, None]


def alpha_sigma(alphas_cumprod: Float[Tensor, " steps"], t: Int[Tensor, " b"]) -> tuple[PerImage, PerImage]:
    """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t)."""
    alpha_bar = alphas_cumprod[t]
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def add_noise(z: Latents, noise: Latents, alpha: PerImage, sigma: PerImage) -> Latents:
    """z_t = alpha z + sigma noise (DDPM, arXiv 2006.11239, eq. 4)."""
    return per_image(alpha) * z + per_image(sigma) * noise


def eps_from_v(v: Latents, z_t: Latents, alpha: PerImage, sigma: PerImage) -> Latents:
    """eps = alpha v + sigma z_t (progressive distillation, arXiv 2202.00512, appendix D)."""
    return per_image(alpha) * v + per_image(sigma) * z_t


def cfg(uncond: Latents, cond: Latents, scale: float) -> Latents:
    """uncond + scale (cond - uncond): scale 1 is the conditional prediction (arXiv 2207.12598; papers' w is scale - 1)."""
    return uncond + scale * (cond - uncond)


def std(x: Latents) -> PerImage:
    """Unbiased standard deviation over all elements of each image."""
    return x.flatten(1).std(dim=1)
