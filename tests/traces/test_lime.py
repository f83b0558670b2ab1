"""Traces of LIME's release, by piece: the same inputs go in, the same quantities must come out."""

from typing import Any

import pytest
import torch

from sdist.regions.kmeans import kmeans
from sdist.regions.maps import FeatureMaps
from sdist.traces.deviation import deviations
from sdist.traces.files import read_arrays, read_settings
from sdist.traces.kinds import Case, compare
from sdist.traces.lime_walks import regions

from .test_traces import GOLDEN, TOLERANCE


def far(name: str, **changes: Any) -> set[str]:
    """The quantities that are not the recorded ones."""
    found = compare(Case(GOLDEN / name, read_settings(GOLDEN / name) | changes))
    assert found
    return {quantity for quantity, d in found.items() if not d.within(TOLERANCE)}


def test_all_instructions_have_the_recorded_tokens_and_positions() -> None:
    assert far("lime_words") <= {"tags"}  # another version of nltk's data may tag otherwise; the recorded tags went in
    cases = read_settings(GOLDEN / "lime_words")["cases"]
    other = [{**cases[0], "averaged_tokens": [3, 4]}, *cases[1:]]
    assert far("lime_words", cases=other) >= {"averaged_tokens"}


def test_probabilities_under_the_penalty_are_the_recorded_ones() -> None:
    assert far("lime_attention") == set()
    layers = read_settings(GOLDEN / "lime_attention")["layers"]
    regularized = {name for name, layer in layers.items() if layer["regularized"]}
    assert far("lime_attention", effective_tokens=[1, 3]) == {f"probabilities.{name}" for name in regularized}


def test_clusters_points_and_masks_are_the_recorded_ones() -> None:
    """From the recorded features, starts and attention."""
    case, recorded = read_settings(GOLDEN / "lime_localize"), read_arrays(GOLDEN / "lime_localize")
    ours = regions(recorded, case["feature_layers"], case["out_res"], case["clusters"], case["top_k"])
    assert ours.keys() == {name for name in recorded if name.startswith(("sample_f", "labels", "inertia", "points", "mask"))}
    found = deviations(ours, recorded)
    assert {name for name, d in found.items() if not d.within(1e-5)} == set()
    exact = {name for name in found if name.startswith(("labels", "points", "mask"))}
    assert {name for name in exact if found[name].max_abs} == set()


def test_other_starts_come_within_a_hundredth_of_the_recorded_inertia() -> None:
    case, recorded = read_settings(GOLDEN / "lime_localize"), read_arrays(GOLDEN / "lime_localize")
    side = case["out_res"]
    features = FeatureMaps.of([recorded[f"feature.{name}"] for name in case["feature_layers"]], (side, side))
    best = min(case["inertia_of_ten_kmeans++_runs"])
    assert kmeans(features, 8, torch.Generator().manual_seed(0), 2).inertia == pytest.approx(best, rel=0.01)
