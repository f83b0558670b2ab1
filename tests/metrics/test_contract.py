"""What every registered metric must do, asked of every registered metric."""

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sdist.metrics.base import ENCODERS, PARTS, Encoders, GroupMetric, ImageMetric
from sdist.metrics.encoders.clip import Clip
from sdist.metrics.encoders.dino import Dino
from sdist.metrics.encoders.lpips import Lpips
from sdist.registry import METRICS

from .samples import BOTH, sample

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
IMAGE_METRICS = [name for name in METRICS.names() if issubclass(METRICS.get(name), ImageMetric)]
GROUP_METRICS = [name for name in METRICS.names() if issubclass(METRICS.get(name), GroupMetric)]


@pytest.fixture
def encoders(clip: Clip, dino: Dino, lpips: Lpips) -> Encoders:
    return Encoders(clip, dino, lpips)


def test_every_metric_is_of_one_kind() -> None:
    assert sorted(IMAGE_METRICS + GROUP_METRICS) == METRICS.names()


@pytest.mark.parametrize("name", METRICS.names())
def test_a_metric_is_a_documented_file_with_label_and_direction(name: str) -> None:
    metric = METRICS.get(name)
    assert Path(inspect.getfile(metric)).stem == name
    assert metric.__doc__
    assert "arXiv" in inspect.getmodule(metric).__doc__
    needs = ", ".join(sorted(metric.needs) if issubclass(metric, ImageMetric) else [f"`{read}`" for read in metric.reads])
    arrow = {"higher": "↑", "lower": "↓"}[metric.better]
    assert f"| `{name}` | {metric.label.replace('*', chr(92) + '*')} {arrow} | {needs} |" in PAGE.read_text(encoding="utf-8")
    assert (Path(__file__).parent / f"test_{name}.py").is_file()


@BOTH
@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_a_sample_has_one_value_whatever_the_others_are(name: str, profile: str, encoders: Encoders) -> None:
    prompts = ["a boat in a meadow", "a [red] cat"]  # this CLIP has a cosine above 0 for the first alone
    metric, samples = METRICS.get(name)(), [sample(seed, target_prompt=prompts[seed % 2]) for seed in range(6)]
    values = metric(samples, encoders, profile)
    assert values.shape == (6,)
    assert values.dtype == np.float64
    assert (np.isfinite(values) | np.isnan(values)).all()
    assert np.isfinite(values).any()
    alone = [metric([one], encoders, profile)[0] for one in samples]
    np.testing.assert_allclose(alone, values, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(metric(samples[::-1], encoders, profile), values[::-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_a_metric_names_the_text_that_it_compares_with(name: str, encoders: Encoders) -> None:
    """So that tables can mark an instruction that stands in its place."""
    metric, one = METRICS.get(name)(), sample(1, target_prompt="a boat in a meadow", description="a boat")
    others = {"target prompt": replace(one, target_prompt="a red cat"), "description": replace(one, description="a red cat")}
    value = metric([one], encoders, "official")
    read = [text for text, other in others.items() if not np.array_equal(metric([other], encoders, "official"), value)]
    assert read == ([metric.text] if metric.text else [])


@BOTH
@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_what_is_not_needed_is_not_read(name: str, profile: str, encoders: Encoders) -> None:
    metric, whole = METRICS.get(name)(), sample(0)
    absent = {"source_prompt": "", "truth": None, "mask": None}
    poor = sample(0, **{part: absent[part] for part in PARTS - metric.needs})
    few = Encoders(**{encoder: getattr(encoders, encoder) for encoder in ENCODERS & metric.needs})
    np.testing.assert_allclose(metric([poor], few, profile), metric([whole], encoders, profile), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_what_is_needed_is_read(name: str, encoders: Encoders) -> None:
    metric = METRICS.get(name)()
    for encoder in ENCODERS & metric.needs:
        few = Encoders(**{other: getattr(encoders, other) for other in ENCODERS - {encoder}})
        with pytest.raises(LookupError, match="its needs do not name"):
            metric([sample(0)], few, "clean")
    for part in metric.needs - ENCODERS:
        with pytest.raises(LookupError, match="its needs do not name"):
            [metric([sample(0, **{part: None})], encoders, profile) for profile in ("official", "clean")]  # one of them reads it


@BOTH
@pytest.mark.parametrize("name", GROUP_METRICS)
def test_a_group_has_one_value_whatever_the_order(name: str, profile: str) -> None:
    metric, rng = METRICS.get(name)(), np.random.default_rng(0)
    assert {*metric.reads} <= {*IMAGE_METRICS}
    scores = {read: 1 + rng.random(40) for read in metric.reads}
    summary = metric(scores, profile)
    assert isinstance(summary.value, float)
    assert np.isfinite(summary.value)
    assert 0 <= summary.undefined <= summary.n <= 40
    turned = metric({read: values[::-1].copy() for read, values in scores.items()}, profile)
    assert turned == (pytest.approx(summary.value), *summary[1:])


def test_a_need_that_nothing_meets_is_an_error_of_its_class() -> None:
    with pytest.raises(TypeError, match="Odd needs depth: known are clip, dino, lpips, mask, source_prompt, truth"):
        type("Odd", (ImageMetric,), {"needs": frozenset({"depth"})})
