import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdist.metrics.similarity import cosine

from .test_passing import fixed


@fixed
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_cosines(seed: int, factor: float) -> None:
    a, b = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(seed))
    assert (cosine(a, a) == 1).all()
    assert (np.abs(cosine(a, b)) <= 1).all()
    np.testing.assert_allclose(cosine(a * factor, b), cosine(b, a), atol=1e-6)
    assert np.isnan(cosine(torch.zeros(1, 8), a[:1]))
