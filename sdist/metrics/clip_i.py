"""CLIP-I: cosine of edit and the benchmark's own edit, not the source. MagicBrush, arXiv 2306.10012."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..registry import METRICS
from .base import Encoders, ImageMetric, Sample, Scores, needed
from .profile import Profile
from .similarity import cosine


@METRICS.register("clip_i")
@dataclass(frozen=True)
class ClipI(ImageMetric):
    """Both profiles are equal but for the encoder's input, see `center_crop`."""

    label = "CLIP-I"
    better = "higher"
    needs = frozenset({"truth", "clip"})

    def __call__(self, samples: Sequence[Sample], encoders: Encoders, profile: Profile) -> Scores:
        clip = needed(encoders.clip)
        results, truths = [sample.result for sample in samples], [needed(sample.truth) for sample in samples]
        return cosine(clip.images(results, profile), clip.images(truths, profile))
