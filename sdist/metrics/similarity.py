"""Cosines of embeddings, one an image, in float64; nan where an embedding has no direction."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from .profile import Profile

Embeddings = Float[Tensor, "n d"]
Scores = Float[np.ndarray, " n"]


def cosine(a: Embeddings, b: Embeddings) -> Scores:
    """Within -1..1, exactly 1 for equal embeddings; nan if one is zero."""
    x, y = a.double().numpy(), b.double().numpy()
    with np.errstate(invalid="ignore"):
        return np.clip((x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1)), -1, 1)


def clip_t(edit: Embeddings, local_description: Embeddings) -> Scores:
    """CLIP-T, higher is better: edit against the text that describes the change (MagicBrush, arXiv 2306.10012).

    Both profiles are equal.
    """
    return cosine(edit, local_description)


def clip_i(edit: Embeddings, reference: Embeddings) -> Scores:
    """CLIP-I, higher is better: edit against the reference edit, not the source (MagicBrush, arXiv 2306.10012).

    Both profiles are equal.
    """
    return cosine(edit, reference)


def dino_similarity(edit: Embeddings, reference: Embeddings) -> Scores:
    """DINO, higher is better: class tokens of edit and reference edit (MagicBrush, arXiv 2306.10012).

    Both profiles are equal.
    """
    return cosine(edit, reference)


def clip_r(edit: Embeddings, source: Embeddings, global_description: Embeddings, profile: Profile) -> Scores:
    """CLIP-R, above 1 if the edit shows the description of the whole target better than the source does (LUSD, arXiv 2503.11054).

    cos(edit, text) / cos(source, text). official: whatever the division gives. clean: nan where the source's cosine is not
    positive, since a ratio then ranks nothing.
    """
    above, below = cosine(edit, global_description), cosine(source, global_description)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = above / below
    return ratio if profile == "official" else np.where(below > 0, ratio, np.nan)
