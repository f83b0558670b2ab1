import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from sdist.metrics.base import Encoders
from sdist.metrics.l1 import L1, l1
from sdist.metrics.l2 import l2

from .samples import BOTH, PROFILES, noise_image, sample
from .test_passing import fixed


@BOTH
def test_l1_of_the_published_code(profile: str) -> None:
    rng = np.random.RandomState(0)
    first, second = (Image.fromarray((rng.rand(8, 8, 3) * 255).astype(np.uint8)) for _ in range(2))
    assert l1(second, first, profile) == pytest.approx(0.350674, abs=1e-6)


@fixed
@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 40))
def test_doing_nothing_has_no_distance(seed: int, width: int, height: int) -> None:
    image = noise_image(seed, width, height)
    for profile in PROFILES:
        assert l1(image, image, profile) == l2(image, image, profile) == 0


def test_clean_brings_the_reference_to_the_edit() -> None:
    reference = noise_image(0, 48, 32)
    edit = ImageOps.fit(reference, (16, 16), Image.Resampling.BICUBIC)
    assert l1(edit, reference, "clean") == 0
    stretched = np.asarray(edit.resize((48, 32), Image.Resampling.BICUBIC), float) / 255
    assert l1(edit, reference, "official") == pytest.approx(np.abs(stretched - np.asarray(reference) / 255).mean())


@BOTH
def test_the_edit_is_compared_with_the_benchmarks_own(profile: str) -> None:
    one = sample(0)
    assert L1()([one], Encoders(), profile) == [l1(one.result, one.truth, profile)]
