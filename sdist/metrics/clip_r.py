"""CLIP-R: above 1 if the edit shows the whole target better than the source does. LUSD, arXiv 2503.11054, section 4.2."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..registry import METRICS
from .base import Encoders, ImageMetric, Sample, Scores, needed
from .profile import Profile
from .similarity import Embeddings, cosine


@METRICS.register("clip_r")
@dataclass(frozen=True)
class ClipR(ImageMetric):
    """cos(edit, target prompt) / cos(source, target prompt)."""

    label = "CLIP-R"
    better = "higher"
    text = "target prompt"
    needs = frozenset({"clip"})

    def __call__(self, samples: Sequence[Sample], encoders: Encoders, profile: Profile) -> Scores:
        clip = needed(encoders.clip)
        results, sources = [sample.result for sample in samples], [sample.source for sample in samples]
        prompts = clip.texts([sample.target_prompt for sample in samples])
        return clip_r(clip.images(results, profile), clip.images(sources, profile), prompts, profile)


def clip_r(edit: Embeddings, source: Embeddings, target_prompt: Embeddings, profile: Profile) -> Scores:
    """The ratio of the cosines.

    official: whatever the division gives. clean: nan where the source's cosine is not positive, since a ratio then ranks nothing.
    """
    above, below = cosine(edit, target_prompt), cosine(source, target_prompt)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = above / below
    return ratio if profile == "official" else np.where(below > 0, ratio, np.nan)
