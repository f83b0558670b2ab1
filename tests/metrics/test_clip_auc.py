import numpy as np
import pytest
from hypothesis import given

from sdist.metrics.base import Summary
from sdist.metrics.clip_auc import ClipAuc, clip_auc

from .samples import BOTH, PROFILES
from .test_passing import RATIOS, fixed, grid


@fixed
@given(RATIOS, RATIOS)
def test_clip_auc_is_linear_in_the_edits(add: np.ndarray, other: np.ndarray) -> None:
    everything = np.concatenate([add, other])
    for profile in PROFILES:
        mixed = (len(add) * clip_auc(add, profile) + len(other) * clip_auc(other, profile)) / len(everything)
        assert clip_auc(everything, profile) == pytest.approx(mixed, abs=1e-12)


@BOTH
def test_class_areas_mix_to_the_published_area(profile: str) -> None:
    assert clip_auc(1 + np.repeat([0.081, 0.069], [465, 588]), "clean") == pytest.approx(0.074, abs=5e-4)
    add, other = grid(50)[0], grid(100)[0][50:]
    whole = (len(add) * clip_auc(add, profile) + len(other) * clip_auc(other, profile)) / 100
    assert clip_auc(np.concatenate([add, other]), profile) == pytest.approx(whole, abs=1e-12)


def test_all_edits_are_counted() -> None:
    assert ClipAuc()({"clip_r": np.array([0.9, 1.2, np.nan])}, "clean") == Summary(pytest.approx(0.2 / 3), 3)
