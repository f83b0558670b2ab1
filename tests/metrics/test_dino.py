import numpy as np

from sdist.metrics.base import Encoders
from sdist.metrics.dino import DinoSimilarity
from sdist.metrics.encoders.dino import Dino
from sdist.metrics.similarity import cosine

from .samples import BOTH, sample


@BOTH
def test_the_edit_is_compared_with_the_benchmarks_own(dino: Dino, profile: str) -> None:
    one, same = sample(0), sample(1, result=sample(1).truth)
    values = DinoSimilarity()([one, same], Encoders(dino=dino), profile)
    np.testing.assert_allclose(values[:1], cosine(*dino.images([one.result, one.truth], profile).split(1)), atol=1e-4)
    assert values[1] == 1
