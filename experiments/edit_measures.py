"""How well one edit of a tinyworld pair was made.

success: the judge sees the target's place and pairs, and none of the pairs that the edit was to take away.
background error: mean absolute difference to the source, in 0..255, outside the mask of the change, dilated by 4 pixels. What
    is added may stand anywhere, so an addition is measured outside the square, as large as the box of the rendered addition
    and dilated alike, inside which the edit itself changed most. A change of background is measured inside the things that stay.
distance to the truth: sdist/tinyworld/truth.py.
"""

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation, uniform_filter

from sdist.tinyworld.edits import EditPair
from sdist.tinyworld.judge import Facts, facts

DILATION = 4  # pixels


def is_success(pair: EditPair, seen: Facts) -> bool:
    before, after = facts(pair.before), facts(pair.after)
    return seen.place == after.place and after.pairs <= seen.pairs and not (before.pairs - after.pairs) & seen.pairs


def background_error(pair: EditPair, picture: Image.Image) -> float:
    """Mean absolute difference to the source where nothing should change; see the head of this file."""
    difference = np.abs(np.asarray(picture, np.float32) - np.asarray(pair.source_image, np.float32)).mean(2)
    changed = binary_dilation(pair.mask > 0.1, iterations=DILATION)
    if pair.kind == "add":
        changed = most_changed(difference, changed)
    return float(difference[~changed].mean()) if not changed.all() else 0.0


def most_changed(difference: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The square of the side of `like`'s bounding box in which the difference is largest."""
    ys, xs = like.nonzero()
    side = min(int(max(np.ptp(ys), np.ptp(xs))) + 1, len(difference))
    low = side // 2
    inner = uniform_filter(difference, side, mode="constant")[
        low : len(difference) - side + low + 1, low : len(difference) - side + low + 1
    ]
    top, left = np.unravel_index(inner.argmax(), inner.shape)
    square = np.zeros(difference.shape, bool)
    square[top : top + side, left : left + side] = True
    return square
