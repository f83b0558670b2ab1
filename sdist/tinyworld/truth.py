"""How far an edit is from the right answer, which tinyworld knows: the rendered target."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ..files.images import to_pixels
from .edits import EditPair

Pixels = Float[Tensor, "b 3 h w"]  # in [-1, 1]


class Truth(NamedTuple):
    """A pair's source and target as the autoencoder reconstructs them."""

    source: Float[Tensor, "3 h w"]
    target: Float[Tensor, "3 h w"]


def autoencoded(pair: EditPair, reconstruct: Callable[[Pixels], Pixels]) -> Truth:
    """The truth that the edits of a pair are held against."""
    return Truth(*reconstruct(to_pixels([pair.source_image, pair.target_image])))


def distance(pair: EditPair, edit: Image.Image, truth: Truth) -> float | None:
    """|edit - t| / |s - t| over all pixels, with s and t the source and the target of the truth.

    0 is perfect, 1 what doing nothing scores; beyond 1 the edit is farther from the truth than the source is. None for
    an addition, which may stand anywhere.
    """
    if pair.kind == "add":
        return None
    return float((to_pixels([edit])[0] - truth.target).norm() / (truth.source - truth.target).norm())
