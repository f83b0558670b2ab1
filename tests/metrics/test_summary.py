"""Means of scores, and that published means of classes mix to the published mean."""

import numpy as np
import pytest

from sdist.errors import UserError
from sdist.metrics.profile import check_profile
from sdist.metrics.summary import summarize

NOTEBOOK = {  # LUSD's released notebook: all, add (465 edits), other (588)
    "clip_t": (0.287, 0.283, 0.290), "l1": (0.063, 0.059, 0.067), "clip_i": (0.900, 0.897, 0.902),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTEBOOK)
def test_class_means_mix_to_the_published_mean(name: str) -> None:
    whole, add, other = NOTEBOOK[name]
    mixed = summarize(np.repeat([add, other], [465, 588]), "official")
    assert (mixed.n, mixed.value) == (1053, pytest.approx(whole, abs=1e-3))


USER_STUDY = {  # LUSD, tables 5 (add, other) and 1: background, prompt, quality, overall
    "InstructPix2Pix": [(30, 37, 33.5), (39, 41, 40), (35, 38, 36.5), (36, 36, 36)],
    "HIVE": [(42, 52, 47), (34, 47, 40.5), (42, 48, 45), (34, 44, 39)],
    "LEDITS++": [(31, 40, 35.5), (27, 39, 33), (27, 47, 37), (29, 41, 35)],
    "DDS": [(39, 48, 43.5), (31, 43, 37), (34, 42, 38), (35, 42, 38.5)],
    "CDS": [(28, 61, 44.5), (25, 55, 40), (31, 55, 43), (29, 55, 42)],
}


@pytest.mark.parametrize("method", USER_STUDY)
def test_the_user_study_is_the_mean_of_its_classes(method: str) -> None:
    for add, other, whole in USER_STUDY[method]:
        assert summarize(np.array([add, other], float), "official").value == whole


def test_summaries_count_what_they_leave_out() -> None:
    values = np.array([1.0, np.nan, 3.0, np.inf])
    assert summarize(values, "clean") == (2.0, 4, 1, 1)
    assert summarize(values, "official") == (np.inf, 4, 1, 1)
    assert np.isnan(summarize(np.array([np.nan]), "clean").value)


def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(UserError, match="unknown profile 'clear'; did you mean 'clean'\\? have clean, official"):
        check_profile("clear")
