"""Structural similarity (Wang et al., 2004) outside the mask. PIE-Bench, arXiv 2310.01506."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from ..registry import METRICS
from .background import edit_source_mask
from .base import Encoders, ImageMetric, Sample, Scores, per_image
from .pixels import Mask, Pixels
from .profile import Profile

WINDOW, SIGMA = 11, 1.5  # pixels
C1, C2 = 0.01**2, 0.03**2  # for values in 0..1


@METRICS.register("ssim")
@dataclass(frozen=True)
class Ssim(ImageMetric):
    """See `background_ssim`, where the profiles differ."""

    label = "SSIM"
    better = "higher"
    needs = frozenset({"mask"})

    def __call__(self, samples: Sequence[Sample], encoders: Encoders, profile: Profile) -> Scores:
        return per_image(lambda sample: background_ssim(*edit_source_mask(sample, profile), profile), samples)


def background_ssim(edit: Pixels, source: Pixels, mask: Mask, profile: Profile) -> float:
    """The mean over colours and over windows that lie inside the image.

    official: both images are black inside the mask, where they thus count as equal. clean: the mean is over windows without
    a pixel of the mask. nan if the mask leaves no background, or in the clean profile no such window.
    """
    if mask.all():
        return float("nan")
    a, b = (torch.from_numpy(pixels).permute(2, 0, 1) for pixels in (edit, source))
    inside = torch.from_numpy(mask)
    if profile == "official":
        return float(ssim_map(a * ~inside, b * ~inside).mean())
    everywhere = ssim_map(a, b)
    free = F.max_pool2d(inside[None].double(), WINDOW, stride=1)[0] == 0
    return float(everywhere[:, free].mean())


def ssim_map(a: Float[Tensor, "c h w"], b: Float[Tensor, "c h w"]) -> Float[Tensor, "c h-10 w-10"]:
    """Of every window of 11 x 11 pixels under a Gaussian of sigma 1.5, of values in 0..1. Raises UserError for smaller images."""
    if min(a.shape[1:]) < WINDOW:
        raise UserError(f"SSIM needs images of at least {WINDOW} x {WINDOW} pixels, got {a.shape[2]} x {a.shape[1]}")
    mean_a, mean_b, square_a, square_b, product = _blur(torch.stack([a, b, a * a, b * b, a * b]))
    variances = square_a - mean_a**2 + square_b - mean_b**2
    covariance = product - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return likeness * (2 * covariance + C2) / (variances + C2)


def _blur(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h-10 w-10"]:
    distance = torch.arange(WINDOW, dtype=x.dtype) - WINDOW // 2
    line = torch.exp(-((distance / SIGMA) ** 2) / 2)
    line = line / line.sum()
    flat = x.flatten(0, 1)[:, None]
    return F.conv2d(F.conv2d(flat, line[None, None, :, None]), line[None, None, None]).unflatten(0, x.shape[:2])[:, :, 0]
