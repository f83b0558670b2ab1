"""Images and samples that tests of metrics share."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sdist.metrics.base import Sample

PROFILES = ("official", "clean")
BOTH = pytest.mark.parametrize("profile", PROFILES)
SIDE = 32


def noise_image(seed: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def sample(seed: int, **changes: object) -> Sample:
    """Noise in all that a metric may need."""
    result, source, truth = (noise_image(3 * seed + i) for i in range(3))
    mask = np.zeros((SIDE, SIDE), bool)
    mask[8:24, :16] = True
    made = Sample(result, source, "a cat wearing a [red] hat", "a red hat", "a cat", truth, mask)
    return replace(made, **changes)


def pixel_arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two images of values in 0..1 and a mask, of which published values are known."""
    rng = np.random.RandomState(0)
    a = rng.rand(96, 80, 3).astype(np.float32)
    b = np.clip(a + 0.1 * rng.randn(96, 80, 3), 0, 1)
    mask = np.zeros((96, 80), bool)
    mask[20:60, 20:60] = True
    return a.astype(np.float64), b.astype(np.float32).astype(np.float64), mask
