import numpy as np
import pytest
import torch

from sdist.metrics.base import Encoders
from sdist.metrics.clip_auc import clip_auc
from sdist.metrics.clip_r import ClipR, clip_r
from sdist.metrics.encoders.clip import Clip
from sdist.metrics.passing import passing

from .samples import BOTH, sample


def test_a_ratio_over_a_source_that_points_away_is_undefined_in_the_clean_profile() -> None:
    text = torch.tensor([[1.0, 0], [1, 0], [1, 0]])
    source = torch.tensor([[1.0, 0], [-1, 0], [0, 1]])
    edit = torch.tensor([[1.0, 0], [1, 0], [1, 0]])
    np.testing.assert_array_equal(clip_r(edit, source, text, "official"), [1, -1, np.inf])
    np.testing.assert_array_equal(clip_r(edit, source, text, "clean"), [1, np.nan, np.nan])


@BOTH
def test_edit_and_source_are_compared_with_the_target_prompt(clip: Clip, profile: str) -> None:
    one = sample(0)
    edit, source = clip.images([one.result, one.source], profile).split(1)
    expected = clip_r(edit, source, clip.texts([one.target_prompt]), profile)
    np.testing.assert_allclose(ClipR()([one], Encoders(clip), profile), expected, atol=1e-4)


@BOTH
def test_doing_nothing_never_passes(clip: Clip, profile: str) -> None:
    ratios = ClipR()([sample(seed, result=sample(seed).source) for seed in range(6)], Encoders(clip), profile)
    assert set(ratios[~np.isnan(ratios)]) <= {1.0}
    assert profile == "clean" or not np.isnan(ratios).any()
    assert passing(ratios, 1.0) == 0
    assert np.isnan(ratios).all() or clip_auc(ratios, profile) == 0


@BOTH
def test_without_a_ratio_the_area_is_undefined_and_one_that_is_missing_passes_nowhere(profile: str) -> None:
    assert np.isnan(clip_auc(np.full(3, np.nan), profile))
    assert clip_auc(np.array([1.2, np.nan]), profile) == pytest.approx(0.1, abs=0.01)
