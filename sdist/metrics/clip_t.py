"""CLIP-T: cosine of the edit and the text that describes what is new. MagicBrush, arXiv 2306.10012."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..registry import METRICS
from .base import Encoders, ImageMetric, Sample, Scores, needed
from .profile import Profile
from .similarity import cosine


@METRICS.register("clip_t")
@dataclass(frozen=True)
class ClipT(ImageMetric):
    """Both profiles are equal but for the encoder's input, see `center_crop`."""

    label = "CLIP-T"
    better = "higher"
    text = "description"
    needs = frozenset({"clip"})

    def __call__(self, samples: Sequence[Sample], encoders: Encoders, profile: Profile) -> Scores:
        clip = needed(encoders.clip)
        descriptions = clip.texts([sample.description for sample in samples])
        return cosine(clip.images([sample.result for sample in samples], profile), descriptions)
