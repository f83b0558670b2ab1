import numpy as np

from sdist.metrics.base import Encoders
from sdist.metrics.clip_t import ClipT
from sdist.metrics.encoders.clip import Clip
from sdist.metrics.similarity import cosine

from .samples import BOTH, sample


@BOTH
def test_the_edit_is_compared_with_the_description_of_what_is_new(clip: Clip, profile: str) -> None:
    one = sample(0)
    edit = clip.images([one.result], profile)
    value = ClipT()([one], Encoders(clip), profile)
    np.testing.assert_allclose(value, cosine(edit, clip.texts([one.description])), atol=1e-4)
    assert abs(value - cosine(edit, clip.texts([one.target_prompt]))) > 1e-3
