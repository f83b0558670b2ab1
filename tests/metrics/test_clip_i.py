import numpy as np

from sdist.metrics.base import Encoders
from sdist.metrics.clip_i import ClipI
from sdist.metrics.encoders.clip import Clip
from sdist.metrics.similarity import cosine

from .samples import BOTH, sample


@BOTH
def test_the_edit_is_compared_with_the_benchmarks_own(clip: Clip, profile: str) -> None:
    one = sample(0)
    edit = clip.images([one.result], profile)
    value = ClipI()([one], Encoders(clip), profile)
    np.testing.assert_allclose(value, cosine(edit, clip.images([one.truth], profile)), atol=1e-4)
    assert abs(value - cosine(edit, clip.texts([one.target_prompt]))) > 1e-3


@BOTH
def test_the_benchmarks_own_edit_is_perfect(clip: Clip, profile: str) -> None:
    assert ClipI()([sample(0, result=sample(0).truth)], Encoders(clip), profile) == [1]
