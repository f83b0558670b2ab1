"""From a data set and a folder of results to tables, through the real command line."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import sdist
from sdist.cli import main
from sdist.datasets.base import Pair
from sdist.errors import UserError
from sdist.evaluation import evaluator
from sdist.evaluation.folder import read_evaluation
from sdist.evaluation.scores import as_counted
from sdist.evaluation.summary import summarize_table
from sdist.registry import METRICS

from ..datasets.test_datasets import index, magicbrush, pie, write_csv  # noqa: F401
from ..encoders import clip_folder, dino_folder  # noqa: F401
from ..test_documents import install

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


def noise(path: Path, seed: int, side: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)).save(path)


def evaluate(dataset: str, results: Path, output: Path, clip: Path, *more: str) -> int:
    return main(
        [
            "evaluate",
            "--dataset",
            dataset,
            "--results",
            str(results),
            "--output",
            str(output),
            "--clip",
            str(clip),
            "--overwrite",
            "--quiet",
            *more,
        ]
    )


def summary_of(capsys: pytest.CaptureFixture[str]) -> dict[tuple[str, str], dict]:
    return {(row["group"], row["metric"]): row for row in json.loads(capsys.readouterr().out)}


@pytest.fixture
def lists(index: Path) -> Path:  # noqa: F811
    """Two pairs with noise for pictures; only the first has a wanted picture."""
    for seed, name in enumerate(("a", "b", "t")):
        noise(index / "images" / f"{name}.png", seed)
    return index


def test_scores_of_a_list(lists: Path, tmp_path: Path, clip_folder: Path, capsys) -> None:  # noqa: F811
    results, output = tmp_path / "results", tmp_path / "out"
    noise(results / "000_seed0.png", 5)
    noise(results / "000_seed0_panel.png", 6)
    Image.open(lists / "images" / "a.png").save(results / "001_seed0.png")
    assert evaluate(f"index:{lists}", results, output, clip_folder, "--json", "--profile", "official") == 0
    summary = summary_of(capsys)
    assert summary["all", "clip_t"]["n"] == 2
    assert summary["add", "clip_r"]["mean"] == 1.0  # nothing was done to this one
    assert summary["add", "clip_auc"]["mean"] == 0.0
    table = pd.read_csv(output / "per_image.csv", dtype={"key": str}).set_index("key")
    pd.testing.assert_frame_equal(table, pd.read_parquet(output / "per_image.parquet"), check_dtype=False)
    assert list(table.index) == ["000", "001"]
    assert "| all" in (output / "summary.md").read_text()
    assert "clip\\_t" in (output / "summary.tex").read_text()
    assert "a cat in a hat" in (output / "report.html").read_text()


def test_weights_of_prompts_are_no_text_that_is_scored(lists: Path, tmp_path: Path, clip_folder: Path) -> None:  # noqa: F811
    scores = []
    for target in ("a cat in a red hat", "a cat in a (red hat:1.5)"):
        write_csv(lists / "index.csv", [["img_path", "source_prompt", "target_prompt"], ["a.png", "a cat", target]])
        noise(tmp_path / "results" / "000_seed0.png", 5)
        assert evaluate(f"index:{lists}", tmp_path / "results", tmp_path / "out", clip_folder) == 0
        scores.append(pd.read_csv(tmp_path / "out" / "per_image.csv"))
    pd.testing.assert_frame_equal(*scores)


def test_scores_of_magicbrush(magicbrush: Path, tmp_path: Path, clip_folder: Path, dino_folder: Path, capsys) -> None:  # noqa: F811
    """The wanted pictures themselves as results: no distance to them. One turn counts twice, as in the released table."""
    table = magicbrush / "magicbrush_category.csv"
    table.write_text(table.read_text().replace("243361-output2", "243361-output1"))
    results = tmp_path / "results"
    truths = {"12_1": "12-output1", "243361_1": "243361-output1", "243361_inde_2": "243361-output2"}
    for key, name in {**truths, "243361_inde_3": "243361-output3"}.items():
        path = magicbrush / "images" / key.split("_")[0] / f"{name}.png"
        noise(path, len(name) + ord(name[-1]))
        (results / key.split("_")[0]).mkdir(parents=True, exist_ok=True)
        Image.open(path).save(results / key.split("_")[0] / f"{key}.png")
    more = ("--dino", str(dino_folder), "--cache", str(tmp_path / "cache"), "--json", "--profile", "official")
    summaries = []
    for _ in range(2):  # the second time from the cache
        assert evaluate(f"magicbrush:{magicbrush}", results, tmp_path / "out", clip_folder, *more) == 0
        summaries.append(summary_of(capsys))
    assert summaries[0] == summaries[1]
    assert {group: row["n"] for (group, metric), row in summaries[0].items() if metric == "l1"} == {
        "all": 4,
        "Add": 2,
        "Other": 2,
    }
    assert [summaries[0]["all", m]["mean"] for m in ("l1", "l2", "clip_i", "dino")] == [0, 0, 1, 1]


def test_scores_are_there_when_a_page_fails(lists: Path, tmp_path: Path, clip_folder: Path, capsys, monkeypatch) -> None:  # noqa: F811
    results, output = tmp_path / "results", tmp_path / "out"
    for key in ("000", "001"):
        noise(results / f"{key}.png", 5)

    def broken(evaluations: dict) -> bytes:
        assert (output / "per_image.csv").exists()
        assert (output / "summary.csv").exists()
        raise KeyError("brightness")

    monkeypatch.setattr(evaluator, "report_page", broken)
    assert evaluate(f"index:{lists}", results, output, clip_folder, "--json") == 1
    printed, errors = capsys.readouterr()
    assert errors.splitlines()[-1] == f"sdist: error: {output / 'report.html'} could not be made: KeyError: 'brightness'"
    assert json.loads(printed)[0]["n"] == 2
    assert sorted(path.name for path in output.iterdir()) == [
        "evaluation.json", "per_image.csv", "per_image.parquet", "summary.csv", "summary.md", "summary.tex",
    ]  # fmt: skip


def test_evaluation_from_python(lists: Path, tmp_path: Path, clip_folder: Path, caplog) -> None:  # noqa: F811
    """Of two pairs one has the benchmark's own edit."""
    for key, seed in (("000", 5), ("001", 6)):
        noise(tmp_path / "results" / f"{key}_seed3.png", seed)
    scored: list[int] = []
    caplog.set_level("INFO", "sdist")
    result = sdist.evaluate(
        f"index:{lists}", tmp_path / "results", tmp_path / "out", seed=3, progress=scored.append, clip=str(clip_folder)
    )
    assert scored == [2]
    assert repr(result).startswith(f"<EvaluationResult of 2 pairs in {tmp_path / 'out'}, 0 problems: clip_i, ")
    assert list(result.per_image) == ["category", "clip_i", "clip_r", "clip_t", "l1", "l2", "truth_distance"]
    assert result.per_image["l1"].isna().tolist() == [False, True]
    assert tuple(result.summary.loc["all", "l1"][["n", "undefined"]]) == (2, 1)
    assert all(path.is_file() for path in result.files)
    assert not result.problems
    assert caplog.messages == ["not measured: dino (without --dino)"]
    write_csv(lists / "index.csv", [["img_path", "source_prompt", "target_prompt"], ["a.png", "", "a cat"]])
    (tmp_path / "results" / "001_seed3.png").unlink()
    with pytest.raises(UserError, match="no metric can be measured with what the dataset has and without encoders"):
        sdist.evaluate(f"index:{lists}", tmp_path / "results", tmp_path / "other", seed=3, clip=None)


def test_the_metric_of_another_package(lists: Path, tmp_path: Path, clip_folder: Path, monkeypatch) -> None:  # noqa: F811
    """The one of docs/evaluation.md, with nothing but its entry point."""
    code = next(part for part in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "class" in part)
    install(tmp_path, monkeypatch, "brightness_metric", code, "[sdist.metric]\nbrightness = brightness_metric\n")
    METRICS.names()
    monkeypatch.setattr(METRICS, "_classes", dict(METRICS._classes))
    monkeypatch.setattr(METRICS, "_complete", False)
    monkeypatch.delitem(sys.modules, "brightness_metric", raising=False)
    for key, colour in (("000", "white"), ("001", "red")):
        (tmp_path / "results").mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), colour).save(tmp_path / "results" / f"{key}.png")
    Image.new("RGB", (32, 32), "black").save(lists / "images" / "t.png")
    for name in ("one", "other"):
        result = sdist.evaluate(f"index:{lists}", tmp_path / "results", tmp_path / name, clip=str(clip_folder))
    assert result.per_image["brightness"].iloc[0] == 1
    assert '"label":"Brightness","arrow":"\\u2193"' in (tmp_path / "one" / "report.html").read_text()
    compare = ["compare", str(tmp_path / "one"), str(tmp_path / "other"), "--x", "brightness", "--quiet"]
    assert main([*compare, "--output", str(tmp_path / "both")]) == 0
    monkeypatch.delitem(METRICS._classes, "brightness")
    with pytest.raises(UserError, match=r"unknown metric 'brightness' in .*one: have clip_auc"):
        read_evaluation(tmp_path / "one")


def test_the_official_profile_counts_turns_as_the_released_table_does() -> None:
    pairs = [Pair(key, Path(), "", "", counted=n) for key, n in {"a": 1, "b": 2, "c": 0}.items()]
    scores = pd.DataFrame({"category": ["Add", "Other", ""], "clip_r": [1.0, 1.3, 9.0]}, index=["a", "b", "c"])
    summary = summarize_table(as_counted(scores, pairs), "official")
    assert summary.loc["all", "clip_r"]["mean"] == pytest.approx((1 + 2 * 1.3) / 3)
    assert summary.loc["all", "clip_auc"]["n"] == 3
    assert summary.loc["Other", "clip_r"]["n"] == 2
    assert set(summary.index.get_level_values("group")) == {"all", "Add", "Other"}


def test_scores_of_pie_bench(pie: Path, tmp_path: Path, clip_folder: Path, dino_folder: Path, capsys) -> None:  # noqa: F811
    results = tmp_path / "results"
    for path in (pie / "annotation_images").rglob("*.jpg"):
        noise(path, 3, side=512)
        (results / path.parent.name).mkdir(parents=True)
        Image.open(path).save(results / path.parent.name / f"{path.stem}.png")
    assert evaluate(f"pie_bench:{pie}", results, tmp_path / "out", clip_folder, "--dino", str(dino_folder), "--json") == 0
    summary = summary_of(capsys)
    assert [summary["all", m]["mean"] for m in ("structure_distance", "mse", "ssim")] == pytest.approx([0, 0, 1], abs=1e-6)


def test_missing_and_extra_results_are_named(lists: Path, tmp_path: Path, clip_folder: Path, capsys) -> None:  # noqa: F811
    results = tmp_path / "results"

    def refused(message: str) -> None:
        assert evaluate(f"index:{lists}", results, tmp_path / "out", clip_folder) == 2
        assert message in capsys.readouterr().err

    refused("does not exist")
    noise(results / "000.png", 5)
    refused("1 of 2 results are missing")
    assert evaluate(f"index:{lists}", results, tmp_path / "out", clip_folder, "--allow-missing", "--json") == 0
    row = summary_of(capsys)["all", "clip_t"]
    assert (row["n"], row["undefined"]) == (2, 1)
    noise(results / "007.png", 5)
    refused("1 pictures in")
    noise(results / "more" / "007.png", 5)
    refused("results of the same name")


def test_scores_are_kept_unless_asked_and_a_failing_call_leaves_no_folder(
    lists: Path, tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys  # noqa: F811
) -> None:  # fmt: skip
    for seed, name in enumerate(("000", "001")):
        noise(tmp_path / "results" / "mine" / f"{name}.png", seed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    command = ["evaluate", "--dataset", f"index:{lists}", "--results", "results/mine", "--quiet"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "evaluation model openai/clip-vit-base-patch32: not on this disk" in said
    assert "--clip tinyworld needs no download" in said
    assert not (tmp_path / "evaluations").exists()
    command += ["--clip", str(clip_folder)]
    assert main(command) == 0
    before = (tmp_path / "evaluations" / "mine" / "evaluation.json").read_bytes()
    assert main([*command, "--profile", "official"]) == 2
    assert "has the scores of another evaluation; --overwrite replaces them" in capsys.readouterr().err
    assert (tmp_path / "evaluations" / "mine" / "evaluation.json").read_bytes() == before
    assert main(command) == 0  # the same once more
    assert main([*command, "--profile", "official", "--overwrite"]) == 0
    assert main([*command, "--output", "evaluations/mine"]) == 0  # a folder that is named
    assert (tmp_path / "evaluations" / "mine" / "evaluation.json").read_bytes() == before


def test_evaluations_side_by_side(lists: Path, tmp_path: Path, clip_folder: Path, capsys) -> None:  # noqa: F811
    for name, seeds in {"one": (5, 6), "other": (7, 8)}.items():
        for key, seed in enumerate(seeds):
            noise(tmp_path / name / f"{key:03d}.png", seed)
        assert evaluate(f"index:{lists}", tmp_path / name, tmp_path / "scores" / name, clip_folder) == 0
    folders = [str(tmp_path / "scores" / name) for name in ("one", "other")]
    capsys.readouterr()
    assert main(["compare", *folders, "--output", str(tmp_path / "both")]) == 0
    shown = capsys.readouterr().out
    assert "| one" in shown
    assert "| other" in shown
    assert "clip\\_t" in (tmp_path / "both" / "comparison.tex").read_text()
    undefined = any(pd.read_csv(Path(folder) / "per_image.csv")["clip_r"].isna().all() for folder in folders)
    assert (tmp_path / "both" / "success.png").exists() != undefined
    assert main(["compare", *folders, "--group", "none", "--output", str(tmp_path / "both")]) == 2
    assert "one has no group 'none': have all, add, change" in capsys.readouterr().err
    record = tmp_path / "scores" / "one" / "evaluation.json"
    whole = record.read_text()
    for old, new, message in (
        ('"clean"', '"official"', "one has profile official, other clean"),
        ("a dog", "a horse", "scored other pairs"),
        ('"001"', '"009"', "is not a folder that sdist evaluate wrote"),
    ):
        record.write_text(whole.replace(old, new))
        assert main(["compare", *folders, "--output", str(tmp_path / "both")]) == 2
        assert message in capsys.readouterr().err
    assert main(["compare", str(tmp_path), "--output", str(tmp_path / "both")]) == 2
    assert "is not a folder that sdist evaluate wrote" in capsys.readouterr().err


def test_a_model_that_cannot_be_had_is_named_at_once(lists: Path, tmp_path: Path, capsys) -> None:
    noise(tmp_path / "results" / "000.png", 5)
    noise(tmp_path / "results" / "001.png", 5)
    for name in ("some/clip", "no model"):
        assert evaluate(f"index:{lists}", tmp_path / "results", tmp_path / "out", Path(name)) == 2
        assert f"evaluation model {name}: not on this disk" in capsys.readouterr().err


def test_an_interval_holds_the_mean_and_shrinks_with_more_pictures() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (20, 500):
        table = pd.DataFrame({"category": "", "clip_r": rng.normal(1.1, 0.1, n)})
        row = summarize_table(table, "clean").loc["all", "clip_r"]
        assert row["low"] < row["mean"] < row["high"]
        widths.append(row["high"] - row["low"])
    assert widths[1] < widths[0] / 3
