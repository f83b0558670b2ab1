"""What a search's yaml means, which variants it draws, and what of it is refused."""

from pathlib import Path
from typing import Any

import pytest

from sdist.config.axes import read_axes
from sdist.config.search import Search
from sdist.config.sweep import Sweep, Variant, read_sweep
from sdist.errors import UserError

SPACE = read_axes({"steps": [2, 3, 4], "loss.guidance_scale": {"low": 1, "high": 9}, "optimizer.lr": [0.1, 0.2]}, "space")  # 12
WHOLE = "{samples: 3, pairs: [1, 2], score: l1, space: {steps: [2, 3], loss.guidance_scale: {low: 1, high: 9}}}"


def search(samples: int = 5, **options: Any) -> Search:
    return Search(samples, **{"pairs": (1,), "score": "l1", **options})


def read(folder: Path, entry: str) -> Sweep:
    (folder / "own.yaml").write_text(f"base: dds\nsearch: {entry}\n")
    return read_sweep(str(folder / "own.yaml"))


def test_a_search_draws_variants_that_are_named_as_those_of_a_grid(tmp_path: Path) -> None:
    sweep = read(tmp_path, WHOLE)
    assert (sweep.name, sweep.base, sweep.axes) == ("own", "dds", {})
    assert sweep.search == Search(3, [1, 2], "l1", keep=0.25, seed=0)
    assert len({*sweep.variants}) == 3
    (tmp_path / "grid.yaml").write_text("base: dds\ngrid: {steps: [2, 3], loss.guidance_scale: {low: 1, high: 9}}\n")
    assert {*sweep.variants} < {*read_sweep(str(tmp_path / "grid.yaml")).variants}


def test_methods_may_be_drawn(tmp_path: Path) -> None:
    (variant,) = read(tmp_path, "{samples: 1, pairs: 4, score: l1, space: {base: [cds], steps: [2]}}").variants
    assert variant == Variant("base=cds,steps=2", "cds", ("steps=2",))


def test_the_same_seed_draws_the_same_and_more_samples_begin_with_fewer() -> None:
    few, many = search(5).draw(SPACE), search(9).draw(SPACE)
    assert few == search(5).draw(SPACE) == many[:5]
    assert search(5, seed=1).draw(SPACE) != few


@pytest.mark.parametrize("samples", [12, 13, 500])
def test_every_point_is_drawn_once_if_samples_suffice(samples: int) -> None:
    names = [name for name, _ in search(samples).draw(SPACE)]
    assert len(names) == len({*names}) == 12


def test_every_value_is_drawn_about_as_often() -> None:
    space = read_axes({f"k{i}": list(range(4)) for i in range(6)}, "space")
    drawn = search(800).draw(space)
    for key in space:
        counts = [sum(values[key] == label for _, values in drawn) for label in range(4)]
        assert all(150 < count < 250 for count in counts)


@pytest.mark.parametrize(
    ("count", "keep", "kept"), [(64, 0.25, 16), (3, 0.25, 1), (100, 0.29, 29), (5, 0, 1), (5, 1, 5), (1, 0.1, 1)]
)
def test_a_share_goes_on_and_at_least_one(count: int, keep: float, kept: int) -> None:
    assert search(keep=keep).kept(count) == kept


BAD = {
    "5": "own.yaml: search is {samples: ..., pairs: ..., score: ..., keep: ..., seed: ..., space: ...}, got 5",
    "{sample: 3}": "unknown key 'sample' in search; did you mean 'samples'",
    "{samples: 3, space: {steps: [1]}}": "search needs pairs, score",
    "{samples: 0, pairs: 1, score: l1, space: {steps: [1]}}": "search: samples must be at least 1, got 0",
    "{samples: yes, pairs: 1, score: l1, space: {steps: [1]}}": "search: samples must be a whole number, got True",
    "{samples: 3, pairs: [1, a], score: l1, space: {steps: [1]}}": "search: pairs must be a list (each a whole number), got [1",
    "{samples: 3, pairs: 0, score: l1, space: {steps: [1]}}": "search: pairs must be at least 1, got 0",
    "{samples: 3, pairs: [], score: l1, space: {steps: [1]}}": "search: pairs must rise from round to round, got []",
    "{samples: 3, pairs: [4, 4], score: l1, space: {steps: [1]}}": "search: pairs must rise from round to round, got [4, 4]",
    "{samples: 3, pairs: [4, 2], score: l1, space: {steps: [1]}}": "search: pairs must rise from round to round, got [4, 2]",
    "{samples: 3, pairs: 1, score: l1, keep: 1.5, space: {steps: [1]}}": "search: keep must be within 0..1, got 1.5",
    "{samples: 3, pairs: 1, score: l1, keep: half, space: {steps: [1]}}": "search: keep must be a number, got 'half'",
    "{samples: 3, pairs: 1, score: l1, seed: 0.5, space: {steps: [1]}}": "search: seed must be a whole number, got 0.5",
    "{samples: 3, pairs: 1, score: psn, space: {steps: [1]}}": "unknown metric 'psn' in search: score; did you mean 'psnr'",
    "{samples: 3, pairs: 1, score: l1, space: {}}": "search: space is empty",
    "{samples: 3, pairs: 1, score: l1, space: [steps]}": "search: space is {KEY: [VALUE, ...]}, got ['steps']",
    "{samples: 3, pairs: 1, score: l1, space: {steps: []}}": "search: space: steps has no values",
    "{samples: 3, pairs: 1, score: l1, space: {steps: [5, 5]}}": "search: space: steps has 5 twice",
    "{samples: 3, pairs: 1, score: l1, space: {steps: [5]}}\ngrid: {steps: [1]}": "needs one of variants",
}


@pytest.mark.parametrize("entry", BAD)
def test_bad_searches_are_named(entry: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        read(tmp_path, entry)
    assert BAD[entry] in str(raised.value)


def test_an_unknown_metric_is_told_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"have clip_auc, .*truth_distance"):
        read(tmp_path, "{samples: 3, pairs: 1, score: nearness, space: {steps: [1]}}")
