"""Masks of PIE-Bench (arXiv 2310.01506): runs of pixels that an edit may change."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from ..errors import UserError

Mask = Bool[np.ndarray, "h w"]  # True where the edit may change the picture


def decode_runs(runs: Sequence[int], height: int = 512, width: int = 512) -> Mask:
    """A mask from start, length, start, length, ... over the pixels row by row; a run that leaves the picture ends with it.

    The outermost pixels always belong to the mask, as the benchmark has it in both profiles. UserError for an odd count or a
    negative number.
    """
    if len(runs) % 2 or min(runs, default=0) < 0:
        raise UserError(f"a mask is pairs of start and length, none negative; got {len(runs)} numbers, the least {min(runs)}")
    mask = np.zeros(height * width, bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        mask[start : start + length] = True
    mask = mask.reshape(height, width)
    mask[[0, -1]] = mask[:, [0, -1]] = True
    return mask
