"""Structure distance: how much the self-similarity of DINO's keys differs (Tumanyan et al., arXiv 2201.00424, section 3)."""

from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .encoders import Dino
from .profile import Profile

Keys = Float[Tensor, "b tokens d"]


def structure_distance(edit: Image.Image, source: Image.Image, dino: Dino, profile: Profile) -> float:
    """Lower is better: mean squared difference of the self-similarities of two whole pictures of one size.

    The profiles differ in the encoder's input, see `structure_pixels`.
    """
    a, b = self_similarity(dino.keys([edit, source], profile))
    return float(((a - b) ** 2).mean())


def self_similarity(keys: Keys) -> Float[Tensor, "b tokens tokens"]:
    """Cosines of each token's key with each other's."""
    unit = F.normalize(keys.double(), dim=-1)
    return unit @ unit.mT
