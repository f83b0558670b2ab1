"""What is wrong with one image, one row or one metric costs itself alone and is named; the other scores are there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sdist.metrics.base import GroupMetric, ImageMetric, Sample
from sdist.registry import METRICS

from ..datasets.test_datasets import write_csv
from .test_evaluation import evaluate, noise

HEAD = ["img_path", "source_prompt", "target_prompt", "caption", "truth", "instruction"]


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Three pairs, and results for all."""
    for i in range(3):
        noise(tmp_path / "in" / "images" / f"{i}.png", i)
        noise(tmp_path / "in" / "images" / f"t{i}.png", 10 + i)
        noise(tmp_path / "results" / f"00{i}_seed0.png", 20 + i)
    write_rows(tmp_path)
    return tmp_path


def write_rows(folder: Path, **changes: str) -> None:
    """Of the row 001 some fields are others."""
    rows = [
        {**dict.fromkeys(HEAD, ""), "img_path": f"{i}.png", "target_prompt": "a boat in a meadow", "truth": f"t{i}.png"}
        for i in range(3)
    ]
    rows[1] |= changes
    write_csv(folder / "in" / "index.csv", [HEAD, *([row[name] for name in HEAD] for row in rows)])


def scores(folder: Path, clip: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, pd.DataFrame]:
    code = evaluate(f"index:{folder / 'in'}", folder / "results", folder / "out", clip, *more)
    table = pd.read_csv(folder / "out" / "per_image.csv", dtype={"key": str}).set_index("key") if code != 2 else pd.DataFrame()
    return code, capsys.readouterr().err, table


def no_picture(path: str) -> Callable[[Path], object]:
    return lambda folder: (folder / path).write_bytes(b"no picture")


BAD = {  # what is done, what is said, metrics that are undefined for the row 001
    "a caption too long": (
        lambda folder: write_rows(folder, caption="cat " * 60),
        "001 (1.png) has not all scores (clip_t): description has", {"clip_t"},
    ),
    "a target prompt too long": (
        lambda folder: write_rows(folder, target_prompt="cat " * 60),
        "001 (1.png) has not all scores (clip_r, clip_t): description has",
        {"clip_r", "clip_t"},
    ),
    "a result that is no picture": (no_picture("results/001_seed0.png"), "001 (1.png) is not scored: image", None),
    "a result cut short": (
        lambda folder: (folder / "results/001_seed0.png").write_bytes((folder / "results/001_seed0.png").read_bytes()[:900]),
        "001 (1.png) is not scored: image", None,
    ),
    "no source": (lambda folder: (folder / "in/images/1.png").unlink(), "001 (1.png) is not scored: image", None),
    "a source that is no picture": (no_picture("in/images/1.png"), "001 (1.png) is not scored: image", None),
    "no truth": (lambda folder: (folder / "in/images/t1.png").unlink(), "001 (1.png) is not scored: image", None),
}  # fmt: skip


@pytest.mark.parametrize(("harm", "said", "lost"), BAD.values(), ids=BAD)
def test_one_bad_row_is_named_and_costs_itself(
    listed: Path,
    clip_folder: Path,
    capsys,
    harm: Callable,
    said: str,
    lost: set[str] | None,
) -> None:
    harm(listed)
    code, err, table = scores(listed, clip_folder, capsys)
    assert code == 1
    assert sum(line.startswith("sdist: error:") for line in err.splitlines()) == 1
    assert f"sdist: error: {said}" in err
    undefined = table.drop(columns="category").isna()
    assert not undefined.loc[["000", "002"]].any(axis=None)
    assert set(undefined.columns[undefined.loc["001"]]) == ({*undefined.columns} if lost is None else lost)
    assert {path.name for path in (listed / "out").iterdir()} >= {"summary.csv", "evaluation.json", "report.html"}


def test_a_row_of_the_csv_that_is_wrong_is_named_and_keeps_its_number(listed: Path, clip_folder: Path, capsys, caplog) -> None:
    lines = (listed / "in" / "index.csv").read_text().splitlines()
    (listed / "in" / "index.csv").write_text("\n".join([*lines[:2], "1.png,a, b, c, d, e, f", lines[3]]))
    (listed / "results" / "001_seed0.png").unlink()
    code, _, table = scores(listed, clip_folder, capsys)
    assert (code, list(table.index)) == (0, ["000", "002"])
    assert "index.csv, line 3: has 7 fields, the header 6" in caplog.text


@pytest.fixture
def metric(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, type], None]:
    METRICS.names()
    monkeypatch.setattr(METRICS, "_classes", dict(METRICS._classes))
    return METRICS._classes.__setitem__


def one_of_three(samples: Sequence[Sample]) -> np.ndarray:
    if any(sample.result.getpixel((0, 0)) == Image.open(one_of_three.bad).getpixel((0, 0)) for sample in samples):
        raise ZeroDivisionError("of this image")
    return np.ones(len(samples))


def out_of_memory_with_many(samples: Sequence[Sample]) -> np.ndarray:
    if len(samples) > 1:
        raise RuntimeError("CUDA out of memory")
    return np.ones(1)


BROKEN = {  # what a metric does, what is said, how many pairs have its score
    "raises": (lambda samples: 1 / 0, "metrics fail (broken): ZeroDivisionError: division by zero", 0),
    "gives too few": (lambda samples: np.ones(len(samples) - 1), "it gave values of shape (2,) for 3 images", 0),
    "gives too many": (lambda samples: np.ones(len(samples) + 1), "it gave values of shape (4,) for 3 images", 0),
    "gives a table": (lambda samples: np.ones((len(samples), 1)), "it gave values of shape (3, 1) for 3 images", 0),
    "gives one number": (lambda samples: 1.0, "it gave values of shape () for 3 images", 0),
    "gives no numbers": (lambda samples: ["good"] * len(samples), "metrics fail (broken): ValueError: could not convert", 0),
    "gives nothing": (lambda samples: None, "it gave values of shape () for 3 images", 0),
    "raises for one": (one_of_three, "001 (1.png) has not all scores (broken): ZeroDivisionError: of this image", 2),
    "cannot hold all": (out_of_memory_with_many, "", 3),
}


@pytest.mark.parametrize(("call", "said", "scored"), BROKEN.values(), ids=BROKEN)
def test_a_metric_that_fails_costs_its_own_scores(
    listed: Path,
    clip_folder: Path,
    capsys,
    metric,
    call: Callable,
    said: str,
    scored: int,
) -> None:
    one_of_three.bad = listed / "results" / "001_seed0.png"

    @dataclass(frozen=True)
    class Broken(ImageMetric):
        label, better, needs = "Broken", "higher", frozenset()

        def __call__(self, samples, encoders, profile):
            return call(samples)

    metric("broken", Broken)
    code, err, table = scores(listed, clip_folder, capsys)
    assert code == (1 if said else 0)
    assert said in err
    assert err.count("sdist: error:") == code
    assert table["broken"].notna().sum() == scored
    assert table.drop(columns=["category", "broken"]).notna().all(axis=None)


def test_a_metric_of_groups_that_fails_is_left_out(listed: Path, clip_folder: Path, capsys, metric) -> None:
    @dataclass(frozen=True)
    class Broken(GroupMetric):
        label, better, reads, interval = "Broken", "higher", ("clip_r",), False

        def __call__(self, scores, profile):
            raise KeyError("clip_q")

    metric("broken", Broken)
    code, err, _ = scores(listed, clip_folder, capsys)
    assert code == 1
    assert "sdist: error: metric broken fails: KeyError: 'clip_q'" in err
    summary = pd.read_csv(listed / "out" / "summary.csv")
    assert {"clip_t", "clip_auc"} <= {*summary["metric"]}
    assert "broken" not in {*summary["metric"]}


def test_nothing_that_can_be_scored_is_one_line(listed: Path, clip_folder: Path, capsys) -> None:
    for i in range(3):
        (listed / "results" / f"00{i}_seed0.png").write_bytes(b"no picture")
    code, err, _ = scores(listed, clip_folder, capsys)
    assert code == 2
    assert "nothing can be scored; the first problem of 3: 000 (0.png) is not scored: image" in err


@pytest.mark.parametrize("ending", ["PNG", "jpg", "webp", "bmp", "tiff"])
def test_results_may_be_of_any_usual_format(listed: Path, clip_folder: Path, capsys, ending: str) -> None:
    path = listed / "results" / "001_seed0.png"
    Image.open(path).save(path.with_suffix(f".{ending}"))
    path.unlink()
    assert scores(listed, clip_folder, capsys)[0] == 0


HELPERS = ("._000_seed0.png", ".thumbnails/000_seed0.png", "@eaDir/000_seed0.png/thumb.jpg", "__MACOSX/._000_seed0.png",
           "Thumbs.db", ".Trashes/001.png", "logs/edit_00001.png")  # fmt: skip


@pytest.mark.parametrize("helper", HELPERS)
def test_helper_files_are_no_results(listed: Path, clip_folder: Path, capsys, helper: str) -> None:
    path = listed / "results" / helper
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(4096))
    assert scores(listed, clip_folder, capsys)[0] == 0
