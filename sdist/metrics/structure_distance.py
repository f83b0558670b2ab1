"""Structure distance: how much the self-similarity of DINO's keys differs (Tumanyan et al., arXiv 2201.00424, section 3).

PIE-Bench, arXiv 2310.01506, measures it of the whole image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..registry import METRICS
from .background import at_one_size
from .base import Encoders, ImageMetric, Sample, Scores, needed, per_image
from .encoders.dino import Dino
from .profile import Profile

Keys = Float[Tensor, "b tokens d"]


@METRICS.register("structure_distance")
@dataclass(frozen=True)
class StructureDistance(ImageMetric):
    """Of pairs with a mask, which are PIE-Bench's. Of the mask only the size is read, see `at_one_size`."""

    label = "Structure distance"
    better = "lower"
    needs = frozenset({"mask", "dino"})

    def __call__(self, samples: Sequence[Sample], encoders: Encoders, profile: Profile) -> Scores:
        def distance(sample: Sample) -> float:
            source = at_one_size(sample, profile).source
            return structure_distance(sample.result, source, needed(encoders.dino), profile)

        return per_image(distance, samples)


def structure_distance(edit: Image.Image, source: Image.Image, dino: Dino, profile: Profile) -> float:
    """Mean squared difference of the self-similarities of two whole images of one size.

    The profiles differ in the encoder's input, see `structure_pixels`.
    """
    a, b = self_similarity(dino.keys([edit, source], profile))
    return float(((a - b) ** 2).mean())


def self_similarity(keys: Keys) -> Float[Tensor, "b tokens tokens"]:
    """Cosines of each token's key with each other's."""
    unit = F.normalize(keys.double(), dim=-1)
    return unit @ unit.mT
