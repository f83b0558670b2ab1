"""DINO: cosine of the class tokens of edit and the benchmark's own edit. MagicBrush, arXiv 2306.10012."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..registry import METRICS
from .base import Encoders, ImageMetric, Sample, Scores, needed
from .profile import Profile
from .similarity import cosine


@METRICS.register("dino")
@dataclass(frozen=True)
class DinoSimilarity(ImageMetric):
    """Both profiles are equal but for the encoder's input, see `center_crop`."""

    label = "DINO"
    better = "higher"
    needs = frozenset({"truth", "dino"})

    def __call__(self, samples: Sequence[Sample], encoders: Encoders, profile: Profile) -> Scores:
        dino = needed(encoders.dino)
        results, truths = [sample.result for sample in samples], [needed(sample.truth) for sample in samples]
        return cosine(dino.images(results, profile), dino.images(truths, profile))
