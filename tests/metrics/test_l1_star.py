import numpy as np
import pytest

from sdist.metrics.base import Summary
from sdist.metrics.l1_star import L1Star

from .samples import BOTH


@BOTH
def test_edits_that_pass_are_counted_and_measured(profile: str) -> None:
    scores = {"l1": np.array([0.1, 0.3, 9.0]), "clip_r": np.array([2.0, 2.0, 0.9])}
    assert L1Star()(scores, profile) == Summary(pytest.approx(0.22 * 0.2), 2)
    nothing = {"l1": np.array([0.1]), "clip_r": np.array([1.0])}
    assert np.isnan(L1Star()(nothing, profile).value)
