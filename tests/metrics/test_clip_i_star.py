import numpy as np
import pytest

from sdist.metrics.base import Summary
from sdist.metrics.clip_i_star import ClipIStar

from .samples import BOTH


@BOTH
def test_edits_that_pass_are_counted_and_measured(profile: str) -> None:
    scores = {"clip_i": np.array([0.1, 0.3, 9.0]), "clip_r": np.array([2.0, 2.0, 0.9])}
    assert ClipIStar()(scores, profile) == Summary(pytest.approx(0.22 * 0.2), 2)
    nothing = {"clip_i": np.array([0.1]), "clip_r": np.array([1.0])}
    assert np.isnan(ClipIStar()(nothing, profile).value)
