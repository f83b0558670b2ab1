"""Thresholds of CLIP-R and areas over them: golden values of the published algorithm, and what both profiles keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdist.errors import UserError
from sdist.metrics.clip_auc import clip_auc
from sdist.metrics.passing import passing, passing_area

from .samples import BOTH, PROFILES

fixed = settings(derandomize=True, deadline=None, max_examples=50)


def grid(n: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    i = np.arange(n)
    ratios = 0.9 + 0.6 * ((37 * i) % 100) / 100 + 0.0005
    return ratios, 0.02 + 0.002 * ((53 * i) % 100) / 10, 0.99 - 0.2 * ((71 * i) % 100) / 100


CASES = {
    "few": (
        np.array([0.95, 1.0, 1.055, 1.123, 1.301]), np.array([0.02, 0.03, 0.05, 0.08, 0.11]),
        np.array([0.98, 0.97, 0.93, 0.90, 0.85]), (0.0966666666666667, 0.0215, 0.1911222222222222),
    ),
    "nothing done": (np.ones(4), np.full(4, 0.037), np.full(4, 0.943), (0.0, np.nan, np.nan)),
    "all pass": (np.full(2, 2.0), np.array([0.1, 0.3]), np.array([0.8, 0.6]), (0.40, 0.044, 0.154)),
    "hundred": (*grid(), (0.1986333333333333, 0.006617512141086436, 0.19628307411544532)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_areas_of_the_published_algorithm(name: str) -> None:
    ratios, l1s, clip_is, expected = CASES[name]
    areas = (clip_auc(ratios, "official"), passing_area(l1s, ratios, "official"), passing_area(clip_is, ratios, "official"))
    np.testing.assert_allclose(areas, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_exact_areas_are_near_the_published_ones(name: str) -> None:
    ratios, l1s, clip_is, expected = CASES[name]
    areas = (clip_auc(ratios, "clean"), passing_area(l1s, ratios, "clean"), passing_area(clip_is, ratios, "clean"))
    np.testing.assert_allclose(areas, expected, rtol=0, atol=2e-3)


def test_exact_areas_in_closed_form() -> None:
    assert clip_auc(grid()[0], "clean") == pytest.approx(0.198335, abs=1e-12)
    ratios, values = np.array([1.1, 1.3, 0.9]), np.array([0.2, 0.4, 9.0])
    assert passing_area(values, ratios, "clean") == pytest.approx(0.1 * 0.3 + 0.12 * 0.4, abs=1e-12)


RATIOS = st.lists(st.floats(0.5, 2), min_size=1, max_size=40).map(np.array)


@fixed
@given(RATIOS, st.floats(1, 2), st.floats(1, 2))
def test_fewer_edits_pass_a_larger_threshold(ratios: np.ndarray, a: float, b: float) -> None:
    assert passing(ratios, max(a, b)) <= passing(ratios, min(a, b))


@fixed
@given(RATIOS, st.floats(0, 1))
def test_the_profiles_differ_by_the_step_alone(ratios: np.ndarray, value: float) -> None:
    auc = {profile: clip_auc(ratios, profile) for profile in PROFILES}
    assert abs(auc["official"] - auc["clean"]) <= 0.0101
    assert all(0 <= area <= 0.4 + 1e-12 for area in auc.values())
    values = np.full(len(ratios), value)
    for profile in PROFILES:
        area = passing_area(values, ratios, profile)
        if passing(ratios, 1.22):
            assert area == pytest.approx(0.22 * value, abs=1e-9)
        elif max(ratios) < 1.22:
            assert np.isnan(area)


@BOTH
def test_an_edit_without_a_ratio_passes_nowhere_and_is_counted(profile: str) -> None:
    assert clip_auc(np.array([2.0, np.nan]), profile) == pytest.approx(0.2)
    assert passing_area(np.array([0.1, 9.0]), np.array([2.0, np.nan]), profile) == pytest.approx(0.022)
    assert np.isnan(passing_area(np.array([0.1, np.nan]), np.array([2.0, 2.0]), profile))


def test_areas_need_edits_and_equal_lengths(unchecked: None) -> None:
    with pytest.raises(UserError, match="at least one edit"):
        clip_auc(np.array([]), "clean")
    with pytest.raises(UserError, match="got 1 and 2"):
        passing_area(np.ones(1), np.ones(2), "clean")
