"""Searches: which variants go on, and whole searches through the real command line."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.config.search import Search
from sdist.config.sweep import Sweep, Variant
from sdist.errors import UserError
from sdist.evaluation.evaluate import EvaluationOptions
from sdist.files.images import load_image
from sdist.jobs.options import RunOptions
from sdist.jobs.problems import ProblemReporter
from sdist.jobs.search import run_search
from sdist.jobs.summary import RunResult
from sdist.jobs.sweep import SweepOptions
from sdist.tinyworld.edits import sample_edit, write_pairs

from ..test_cli import error, run_arguments
from .test_sweep import times, write

Score = Callable[[str, int], tuple[float, int]]  # of a variant's name and the pairs: its mean, and edits without one
VARIANTS = tuple(Variant(name, "dds", (f"steps={steps}",)) for name, steps in zip("abcd", range(2, 6), strict=True))


# --- rounds ------------------------------------------------------------------------------------------------------------


class FakeEvaluator:
    def __init__(self, score: Score) -> None:
        self.score = score

    def mean(self, metric: str, results: Path, seed: int, first: int, report: object) -> tuple[float, int]:
        return self.score(results.name, first)


def searched(
    search: Search, score: Score, folder: Path, monkeypatch, **run: object
) -> tuple[list[RunResult], list, list[str], tuple]:
    """What a search gives whose edits are made up: results, variants and pairs of its rounds, what it said and reported."""
    rounds, said = [], []
    there = dict[str, int]()

    def run_sweep(options: SweepOptions, report: object, say: object) -> list[RunResult]:
        rounds.append(("".join(v.name for v in options.sweep.variants), options.first))
        results = []
        for each in options.runs:
            before, there[each.name] = there.get(each.name, 0), options.first
            results.append(RunResult(each.output, options.first, options.first - before, before, (), 0, (), 1.0))
        return results

    monkeypatch.setattr("sdist.jobs.search.run_sweep", run_sweep)
    monkeypatch.setattr("sdist.jobs.search._evaluator", lambda *given: FakeEvaluator(score))
    runs = [
        RunOptions(method="dds", settings=load_settings("dds"), output=folder / v.name, name=v.name, input="x", **run)
        for v in VARIANTS
    ]
    options = SweepOptions(sweep=Sweep("own", "dds", VARIANTS, {}, search), runs=runs, output=folder)
    report = ProblemReporter(lambda text: None)
    results = run_search(options, search, EvaluationOptions(clip=None), report, said.append)
    return results, rounds, said, report.problems


def halving(score: str = "l1", pairs: Sequence[int] = (2, 4, 8), keep: float = 0.5) -> Search:
    return Search(4, tuple(pairs), score, keep)


def test_the_best_of_each_round_go_on_by_the_scores_of_that_round(tmp_path: Path, monkeypatch) -> None:
    scores = {2: {"a": 1, "b": 4, "c": 2, "d": 3}, 4: {"a": 5, "c": 1}, 8: {"c": 7}}
    results, rounds, said, _ = searched(halving(), lambda name, pairs: (scores[pairs][name], 0), tmp_path, monkeypatch)
    assert rounds == [("abcd", 2), ("ac", 4), ("c", 8)]
    assert said[-1] == "best: --method dds --set steps=4"
    assert [(r.folder.name, r.total, r.made, r.there, r.seconds) for r in results] == [
        ("a", 4, 4, 0, 2.0), ("b", 2, 2, 0, 1.0), ("c", 8, 8, 0, 3.0), ("d", 2, 2, 0, 1.0),
    ]  # fmt: skip
    table = pd.read_csv(tmp_path / "search.csv")
    assert list(table) == ["round", "pairs", "variant", "method", "steps", "l1", "undefined"]
    assert table[["round", "variant", "steps", "l1"]].to_numpy().tolist() == [
        [1, "a", 2, 1], [1, "c", 4, 2], [1, "d", 5, 3], [1, "b", 3, 4], [2, "c", 4, 1], [2, "a", 2, 5], [3, "c", 4, 7],
    ]  # fmt: skip


def test_a_metric_says_itself_what_is_better(tmp_path: Path, monkeypatch) -> None:
    for score, best in (("l1", "steps=2"), ("psnr", "steps=5")):
        _, rounds, said, _ = searched(halving(score, [3]), lambda name, _: (float(ord(name)), 0), tmp_path, monkeypatch)
        assert rounds == [("abcd", 3)]
        assert said[-1] == f"best: --method dds --set {best}"


def test_a_variant_with_fewer_edits_to_score_is_not_better(tmp_path: Path, monkeypatch) -> None:
    scores = {"a": (0.1, 2), "b": (0.4, 0), "c": (math.nan, 4), "d": (0.3, 0)}
    _, rounds, _, _ = searched(halving(pairs=[2, 4], keep=0.75), lambda name, _: scores[name], tmp_path, monkeypatch)
    assert rounds[1] == ("bd", 4)  # of the three that have a score, 2
    assert list(pd.read_csv(tmp_path / "search.csv")["variant"][:3]) == ["d", "b", "a"]


def test_a_variant_that_cannot_be_scored_is_named_and_left(tmp_path: Path, monkeypatch) -> None:
    def score(name: str, pairs: int) -> tuple[float, int]:
        if name != "b":
            raise UserError("it has no results")
        return 1.0, 0

    _, rounds, _, problems = searched(halving(pairs=[1, 2]), score, tmp_path, monkeypatch)
    assert rounds[1] == ("b", 2)
    assert problems == tuple(f"{name} has no score: it has no results" for name in "acd")
    with pytest.raises(UserError, match="round 1: no variant has a l1"):
        searched(halving(), lambda name, pairs: (math.nan, 2), tmp_path, monkeypatch)


def test_seeds_of_which_one_alone_is_scored_are_refused(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match="--seeds 3: a search scores one image per pair"):
        searched(halving(), lambda name, pairs: (1.0, 0), tmp_path, monkeypatch, seeds=3)


@pytest.mark.parametrize("option", [{"limit": 3}, {"shard": (0, 2)}, {"overwrite": True}])
def test_options_of_parts_of_an_input_are_refused(option: dict, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(option))} is not for a search"):
        searched(halving(), lambda name, pairs: (1.0, 0), tmp_path, monkeypatch, **option)


# --- whole searches ----------------------------------------------------------------------------------------------------

TEXT = """
base: dds
search:
  {{samples: 2, pairs: [1, 2], keep: 0.5, score: {score}, space: {{optimizer.lr: [0.01, 1], loss.guidance_scale: {{high: 9}}}}}}
"""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Two edit pairs with their truths, and prompts that the tiny model can read."""
    pairs = [replace(sample_edit(3, i, "recolour"), source="a cat", target="a dog") for i in range(2)]
    write_pairs(tmp_path / "world", pairs, ["", ""])
    return tmp_path / "world"


def search(world: Path, model: Path, work: Path, *more: str, score: str = "truth_distance") -> int:
    arguments = run_arguments(world, model, work / "out", *more)[1:]
    arguments[arguments.index(str(world))] = f"tinyworld:{world}"
    return main(["sweep", write(work, TEXT.format(score=score)), *arguments])


def distance(world: Path, result: Path, key: str) -> float:
    edit, source, truth = (
        np.asarray(load_image(path).resize(load_image(result).size), float)
        for path in (result, world / "images" / f"{key}.png", world / "truths" / f"{key}.png")
    )
    return float(np.linalg.norm(edit - truth) / np.linalg.norm(source - truth))


def test_a_search_scores_without_clip_and_goes_on_where_it_was(world: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    assert search(world, tiny_folder, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "round 1 of 2: 2 variants, 1 pair\n" in printed
    assert "round 2 of 2: 1 variant, 2 pairs\n" in printed
    assert "3 of 3 made, 0 already there, 0 failed\n" in printed
    table = pd.read_csv(tmp_path / "out" / "search.csv")
    assert list(table["round"]) == [1, 1, 2]
    first, second, last = table.to_dict("records")
    assert first["variant"] == last["variant"]
    assert first["truth_distance"] <= second["truth_distance"]
    folder = tmp_path / "out" / last["variant"]
    expected = np.mean([distance(world, folder / f"{key}_seed0.png", key) for key in ("000", "001")])
    assert last["truth_distance"] == pytest.approx(expected, rel=0.02)
    assert f"best: --method dds --set optimizer.lr={last['optimizer.lr']:g} loss.guidance_scale=9\n" in printed

    before, scores = times(tmp_path / "out"), (tmp_path / "out" / "search.csv").read_bytes()
    removed = folder / "001_seed0.png"
    removed.unlink()
    assert search(world, tiny_folder, tmp_path) == 0
    assert "1 of 3 made, 2 already there" in capsys.readouterr().out
    after = times(tmp_path / "out")
    assert {name for name in after if after[name] != before[name]} == {
        f"{folder.name}/001_seed0{end}" for end in (".png", "_panel.png", ".json")
    }
    assert (tmp_path / "out" / "search.csv").read_bytes() == scores


@pytest.mark.parametrize(
    ("score", "more", "message"),
    [
        ("clip_auc", (), "clip_auc cannot be measured here: it needs clip; what can be: l1, l2, mse, psnr, ssim, truth_distance"),
        ("l1", ("--first", "1"), "--first is not for a search"),
    ],
)
def test_what_cannot_be_is_known_before_the_edits(
    score: str, more: tuple[str, ...], message: str, world: Path, tiny_folder: Path, tmp_path: Path, capsys
) -> None:
    assert search(world, tiny_folder, tmp_path, *more, score=score) == 2
    assert message in error(capsys)
    assert not (tmp_path / "out").exists()


def test_rounds_of_more_pairs_than_there_are(world: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    (world / "index.csv").write_text("".join((world / "index.csv").read_text().splitlines(keepends=True)[:2]))
    assert search(world, tiny_folder, tmp_path) == 2
    assert f"search: pairs: a round wants 2, and tinyworld:{world} has 1" in error(capsys)


def test_drawn_variants_are_listed(tmp_path: Path, capsys) -> None:
    assert main(["sweep", write(tmp_path, TEXT.format(score="l1")), "--list"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "own: 2 variants, and what they change against dds"
    assert sorted(line.split()[0] for line in lines) == ["lr=0.01,guidance_scale=high", "lr=1,guidance_scale=high"]
