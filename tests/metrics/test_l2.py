import pytest
from PIL import Image

from sdist.metrics.base import Encoders
from sdist.metrics.l2 import L2, l2

from .samples import BOTH, sample


@BOTH
def test_l2_has_no_root(profile: str) -> None:
    grey, lighter = (Image.new("RGB", (4, 4), (value,) * 3) for value in (51, 102))
    assert l2(grey, lighter, profile) == pytest.approx(0.04)


@BOTH
def test_the_edit_is_compared_with_the_benchmarks_own(profile: str) -> None:
    one = sample(0)
    assert L2()([one], Encoders(), profile) == [l2(one.result, one.truth, profile)]
