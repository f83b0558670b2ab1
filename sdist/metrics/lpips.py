"""LPIPS outside the mask. PIE-Bench, arXiv 2310.01506."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ..registry import METRICS
from .background import edit_source_mask
from .base import Encoders, ImageMetric, Sample, Scores, needed, per_image
from .encoders.lpips import Lpips as LpipsNetwork
from .pixels import Mask, Pixels
from .profile import Profile


@METRICS.register("lpips")
@dataclass(frozen=True)
class Lpips(ImageMetric):
    """See `background_lpips`, where the profiles differ."""

    label = "LPIPS"
    better = "lower"
    needs = frozenset({"mask", "lpips"})

    def __call__(self, samples: Sequence[Sample], encoders: Encoders, profile: Profile) -> Scores:
        network = needed(encoders.lpips)
        return per_image(lambda sample: background_lpips(*edit_source_mask(sample, profile), network, profile), samples)


def background_lpips(edit: Pixels, source: Pixels, mask: Mask, network: LpipsNetwork, profile: Profile) -> float:
    """nan if the mask leaves no background.

    official: both images are black inside the mask, and the mean is over all pixels. clean: the edit shows the source inside
    the mask, and the mean is over the background alone.
    """
    if mask.all():
        return float("nan")
    inside = mask[:, :, None]
    if profile == "official":
        return float(sum(m.mean() for m in network.maps(np.where(inside, 0, edit), np.where(inside, 0, source))))
    maps = network.maps(np.where(inside, source, edit), source)
    whole = sum((F.interpolate(m, mask.shape, mode="bilinear") for m in maps), torch.zeros(()))
    return float(whole[0, 0][~torch.from_numpy(mask)].mean())
