"""What is unlike is never put side by side without a word: sizes, networks, and instructions where descriptions belong."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sdist.cli import main
from sdist.datasets.base import Pair
from sdist.errors import UserError
from sdist.evaluation.results import check_sizes
from sdist.metrics.background import at_one_size
from sdist.metrics.encoders.dino import Dino

from ..datasets.test_datasets import write_csv
from ..metrics.samples import noise_image, sample
from .test_evaluation import evaluate, noise

# --- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (32, 16), (48, 80)])
def test_source_and_mask_are_brought_to_the_edit(size: tuple[int, int]) -> None:
    given = sample(0, result=noise_image(0, *size))
    with pytest.raises(UserError, match=f"the edit has {size[0]} x {size[1]}, its source has 32 x 32.*resize the results"):
        at_one_size(given, "official")
    one = at_one_size(given, "clean")
    assert one.result is given.result
    assert one.source.size == size == one.mask.shape[::-1]
    if size == (16, 16):  # a masked pixel is one of which any part is masked
        assert np.array_equal(one.mask, given.mask.reshape(16, 2, 16, 2).any((1, 3)))
    if size == (64, 64):
        assert np.array_equal(one.mask, given.mask.repeat(2, 0).repeat(2, 1))


def pie_results(folder: Path, results: Path, side: int) -> None:
    for i, path in enumerate((folder / "annotation_images").rglob("*.jpg")):
        noise(path, 3, side=512)
        results.mkdir(exist_ok=True)
        Image.open(path).resize((side, side) if i == 0 else (512, 512)).save(results / f"{path.stem}.png")


@pytest.mark.parametrize("side", [128, 1024])
def test_results_of_any_size_are_scored_or_named_before_anything_is_loaded(
    pie: Path,
    tmp_path: Path,
    clip_folder: Path,
    dino_folder: Path,
    capsys,
    monkeypatch,
    side: int,
) -> None:
    pie_results(pie, tmp_path / "results", side)
    given = (f"pie_bench:{pie}", tmp_path / "results", tmp_path / "out", clip_folder, "--dino", str(dino_folder))
    assert evaluate(*given) == 0
    table = pd.read_csv(tmp_path / "out" / "per_image.csv")
    assert np.isfinite(table[["structure_distance", "mse", "ssim", "clip_edited"]]).all(axis=None)
    monkeypatch.setattr("sdist.evaluation.evaluator.load_encoders", None)
    assert evaluate(*given, "--profile", "official") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "1 results have another size than their source" in said
    assert f" has {side} x {side}, its source 512 x 512; resize the results" in said


def test_results_that_the_published_code_stretches_are_said(tmp_path: Path, caplog) -> None:
    pairs, results = [], {}
    for key, size in {"same": (64, 48), "scaled": (128, 96), "nearly": (64, 50), "square": (64, 64)}.items():
        Image.new("RGB", (64, 48)).save(tmp_path / f"{key}_truth.png")
        Image.new("RGB", size).save(tmp_path / f"{key}.png")
        pairs.append(Pair(key, tmp_path / f"{key}.png", "", "a cat", truth=tmp_path / f"{key}_truth.png"))
        results[key] = tmp_path / f"{key}.png"
    check_sizes(pairs, results | {"same": None})
    stretched = "1 results are stretched to the shape of the wanted image, the first: square has 64 x 64, the wanted 64 x 48"
    assert caplog.messages == [stretched]


# --- networks ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def evaluated(tmp_path: Path, clip_folder: Path, dino_folder: Path) -> Callable[[str], Path]:
    """Evaluates two pairs into a folder of that name."""
    for i in range(2):
        noise(tmp_path / "in" / "images" / f"{i}.png", i)
        noise(tmp_path / "results" / f"00{i}.png", 9 + i)
    rows = [[f"{i}.png", "", "a boat", f"{i}.png"] for i in range(2)]
    write_csv(tmp_path / "in" / "index.csv", [["img_path", "source_prompt", "target_prompt", "truth"], *rows])

    def into(name: str) -> Path:
        more = ("--dino", str(dino_folder))
        assert evaluate(f"index:{tmp_path / 'in'}", tmp_path / "results", tmp_path / name, clip_folder, *more) == 0
        return tmp_path / name

    return into


def test_an_evaluation_says_what_measured(evaluated: Callable, clip_folder: Path, dino: Dino) -> None:
    record = json.loads((evaluated("one") / "evaluation.json").read_text())
    assert record["encoders"]["clip"].items() >= {"id": str(clip_folder), "input": 32, "tokens": 24}.items()
    assert record["encoders"]["dino"] == dino.record | {"id": record["encoders"]["dino"]["id"]}
    assert {"sdist", "torch", "transformers"} <= record["versions"].keys()
    assert f"clip {clip_folder} at 32 pixels" in (evaluated("one") / "report.html").read_text()


UNLIKE = {  # changes of the record, and what is said; nothing where the two may be compared
    "the same": (lambda record: None, ""),
    "another place of the same weights": (lambda record: record["encoders"]["clip"].update(id="openai/other"), ""),
    "another commit of the same weights": (lambda record: record["encoders"]["clip"].update(version="0"), ""),
    "other packages": (lambda record: record["versions"].update(torch="1.0"), ""),
    "other weights": (lambda record: record["encoders"]["clip"].update(weights="0"), "evaluate both with the same --clip"),
    "another input size": (lambda record: record["encoders"]["dino"].update(input=224), "evaluate both with the same --dino"),
    "another patch": (lambda record: record["encoders"]["dino"].update(patch=16), "evaluate both with the same --dino"),
    "one network less": (lambda record: record["encoders"].pop("dino"), ""),
    "no record": (lambda record: record.pop("encoders"), "other does not say with which networks it was scored"),
}


def test_evaluations_of_unlike_networks_are_refused(evaluated: Callable, tmp_path: Path, capsys) -> None:
    folders = [str(evaluated(name)) for name in ("one", "other")]
    path = tmp_path / "other" / "evaluation.json"
    whole = path.read_text()
    for kind, (change, message) in UNLIKE.items():
        record = json.loads(whole)
        change(record)
        path.write_text(json.dumps(record))
        capsys.readouterr()
        code = main(["compare", *folders, "--output", str(tmp_path / "both"), "--quiet"])
        assert (code, message in capsys.readouterr().err) == (2 if message else 0, True), kind
    path.write_text(whole)
    (tmp_path / "@eaDir").mkdir()  # of a pattern in the shell
    assert main(["compare", *folders, str(tmp_path / "@eaDir"), "--output", str(tmp_path / "both"), "--quiet"]) == 0


# --- instructions ------------------------------------------------------------------------------------------------------


MARKED = {  # target, caption, instruction of a pair: which metrics are marked
    "a description": (("a boat", "", ""), set()),
    "a description beside the instruction": (("a boat", "", "add a boat"), set()),
    "an instruction": (("add a boat", "", "add a boat"), {"clip_r", "clip_t", "clip_auc"}),
    "an instruction, and a caption": (("add a boat", "a boat", "add a boat"), {"clip_r", "clip_auc"}),
}


@pytest.mark.parametrize(("texts", "marked"), MARKED.values(), ids=MARKED)
def test_an_instruction_is_marked_wherever_it_is_scored(
    tmp_path: Path, clip_folder: Path, capsys, texts: tuple[str, str, str], marked: set[str]
) -> None:
    noise(tmp_path / "in" / "images" / "a.png", 1)
    noise(tmp_path / "results" / "000.png", 2)
    write_csv(tmp_path / "in" / "index.csv", [["img_path", "source_prompt", "target_prompt", "caption", "instruction"],
                                              ["a.png", "", *texts]])  # fmt: skip
    assert evaluate(f"index:{tmp_path / 'in'}", tmp_path / "results", tmp_path / "out", clip_folder, "--profile", "official") == 0
    shown = capsys.readouterr().out
    summary = pd.read_csv(tmp_path / "out" / "summary.csv", index_col="metric")
    assert {*summary.index[summary["text"] == "instruction"]} == marked
    compare = ["compare", str(tmp_path / "out"), "--published", "lusd_table_2", "--output", str(tmp_path / "both"), "--quiet"]
    assert main(compare) in ((0, 2) if marked == {"clip_r", "clip_t", "clip_auc"} else (0,))
    both = tmp_path / "both" / "comparison.md"
    pages = [shown, (tmp_path / "out" / "summary.md").read_text(), *([both.read_text()] if both.exists() else [])]
    for page in pages:
        assert {name for name in ("clip_r", "clip_t", "clip_auc") if f"{name} (instruction)" in page} == marked
    assert ("CLIP-R (instruction)" in (tmp_path / "out" / "report.html").read_text()) == bool(marked)


# --- options that nothing reads ----------------------------------------------------------------------------------------


def test_a_network_that_nothing_reads_is_said(tmp_path: Path, clip_folder: Path, dino_folder: Path, caplog) -> None:
    noise(tmp_path / "in" / "images" / "a.png", 1)
    noise(tmp_path / "results" / "000.png", 2)
    write_csv(tmp_path / "in" / "index.csv", [["img_path", "source_prompt", "target_prompt"], ["a.png", "", "a boat"]])
    more = ("--dino", str(dino_folder))
    assert evaluate(f"index:{tmp_path / 'in'}", tmp_path / "results", tmp_path / "out", clip_folder, *more) == 0
    assert "--dino is not used: no pair of this dataset has what its metrics need (dino needs truth; struc" in caplog.text
