"""CLIP of the edited part and the whole target prompt. PIE-Bench, arXiv 2310.01506."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..registry import METRICS
from .background import at_one_size
from .base import Encoders, ImageMetric, Sample, Scores, needed
from .clip_whole import agreement
from .profile import Profile


@METRICS.register("clip_edited")
@dataclass(frozen=True)
class ClipEdited(ImageMetric):
    """As `agreement`, of the edit with black outside the mask; for other sizes see `at_one_size`."""

    label = "CLIP edited"
    better = "higher"
    text = "target prompt"
    needs = frozenset({"mask", "clip"})

    def __call__(self, samples: Sequence[Sample], encoders: Encoders, profile: Profile) -> Scores:
        images, prompts = [_edited_part(sample, profile) for sample in samples], [sample.target_prompt for sample in samples]
        return agreement(images, prompts, needed(encoders.clip), profile)


def _edited_part(sample: Sample, profile: Profile) -> Image.Image:
    mask = needed(at_one_size(sample, profile).mask)
    return Image.fromarray(np.asarray(sample.result.convert("RGB")) * mask[:, :, None])
