"""How far an edit is from the right answer, which tinyworld knows: the rendered target."""

from collections.abc import Callable

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ..files.images import to_pixels
from .edits import EditPair

Pixels = Float[Tensor, "b 3 h w"]  # in [-1, 1]


def distance(pair: EditPair, edit: Image.Image, reconstruct: Callable[[Pixels], Pixels]) -> float | None:
    """|edit - t| / |s - t| over all pixels, with s and t the source and the target as the autoencoder reconstructs them.

    0 is perfect, 1 what doing nothing scores; beyond 1 the edit is farther from the truth than the source is. None for
    an addition, which may stand anywhere.
    """
    if pair.kind == "add":
        return None
    source, target = reconstruct(to_pixels([pair.source_image, pair.target_image]))
    return float((to_pixels([edit])[0] - target).norm() / (source - target).norm())
