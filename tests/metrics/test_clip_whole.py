import numpy as np
import pytest

from sdist.errors import UserError
from sdist.metrics.base import Encoders
from sdist.metrics.clip_whole import ClipWhole
from sdist.metrics.encoders.clip import Clip
from sdist.metrics.similarity import cosine

from .samples import BOTH, sample


@BOTH
def test_brackets_are_not_read_and_only_the_published_code_knows_no_negative_value(clip: Clip, profile: str) -> None:
    several = [sample(seed) for seed in range(4)]
    images = clip.images([one.result for one in several], profile)
    expected = 100 * cosine(images, clip.texts(["a cat wearing a red hat"] * 4))
    expected = np.maximum(expected, 0) if profile == "official" else expected
    np.testing.assert_allclose(ClipWhole()(several, Encoders(clip), profile), expected, atol=1e-3)


def test_a_long_prompt_is_cut_by_the_published_code_alone(clip: Clip) -> None:
    long = sample(0, target_prompt="cat " * 30)
    assert np.isfinite(ClipWhole()([long], Encoders(clip), "official")).all()
    with pytest.raises(UserError, match="32 tokens"):
        ClipWhole()([long], Encoders(clip), "clean")
