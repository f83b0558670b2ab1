"""CLIP of the whole edit and the target prompt. PIE-Bench, arXiv 2310.01506."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..registry import METRICS
from .background import check_one_size
from .base import Encoders, ImageMetric, Sample, Scores, needed
from .encoders.clip import Clip
from .profile import Profile
from .similarity import cosine


@METRICS.register("clip_whole")
@dataclass(frozen=True)
class ClipWhole(ImageMetric):
    """Of pairs with a mask, which are PIE-Bench's, beside CLIP edited. official: of the mask the size is read."""

    label = "CLIP whole"
    better = "higher"
    text = "target prompt"
    needs = frozenset({"mask", "clip"})

    def __call__(self, samples: Sequence[Sample], encoders: Encoders, profile: Profile) -> Scores:
        for sample in samples if profile == "official" else ():
            check_one_size(sample)
        images, prompts = [sample.result for sample in samples], [sample.target_prompt for sample in samples]
        return agreement(images, prompts, needed(encoders.clip), profile)


def agreement(images: Sequence[Image.Image], prompts: Sequence[str], clip: Clip, profile: Profile) -> Scores:
    """100 cos(image, prompt), without the prompts' square brackets, which mark what is new.

    official: a negative value becomes 0, and a prompt beyond the model's limit is cut. clean: neither; the prompt is an error.
    """
    texts = [prompt.replace("[", "").replace("]", "") for prompt in prompts]
    values = 100 * cosine(clip.images(images, profile), clip.texts(texts, cut=profile == "official"))
    return np.maximum(values, 0) if profile == "official" else values
