"""Cosines of embeddings, one per image, in float64."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from .base import Scores

Embeddings = Float[Tensor, "n d"]


def cosine(a: Embeddings, b: Embeddings) -> Scores:
    """Within -1..1, exactly 1 for equal embeddings; nan if one is zero."""
    x, y = a.double().numpy(), b.double().numpy()
    with np.errstate(invalid="ignore"):
        return np.clip((x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1)), -1, 1)
