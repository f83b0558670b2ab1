"""Evaluations beside each other and beside published rows, in text and in pictures."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sdist.errors import UserError
from sdist.evaluation import comparison
from sdist.evaluation.comparison import compare, write_comparison
from sdist.evaluation.folder import Evaluation, ScoredPair, to_json
from sdist.evaluation.plots import FIDELITY, PRESERVATION, choose_axes, trade_off
from sdist.evaluation.published import beside, load_published, to_latex
from sdist.evaluation.summary import summarize_table
from sdist.registry import METRICS

NAMES = (
    "lusd_table_2", "lusd_table_3", "lusd_table_4", "lusd_table_6", "pie_bench", "vimaedit_table_1", "vimaedit_table_2",
    "lime_table_1", "lime_table_1_multi_turn", "lime_table_4",
)  # fmt: skip


def evaluation(shift: float, names: tuple[str, ...] = ("clip_t", "clip_r", "l1")) -> Evaluation:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"category": ["Add", "Other"] * 10, **{name: shift + rng.random(20) for name in names}})
    table.index = pd.Index([f"{i:03d}" for i in range(20)], name="key")
    return Evaluation(
        table, summarize_table(table, "clean"), "clean", {key: ScoredPair("", "", "", None, None) for key in table.index}
    )


@pytest.fixture(scope="module")
def evaluations() -> dict[str, Evaluation]:
    return {"b_run": evaluation(0.9), "a_run": evaluation(1.0)}


@pytest.mark.parametrize("name", NAMES)
def test_published_tables_name_their_source_and_known_metrics(name: str) -> None:
    published = load_published(name)
    assert "arXiv 2" in published.label
    for frame in published.groups.values():
        assert set(frame) <= set(METRICS.names())
        assert frame.map(float).notna().all(axis=None)


def test_published_numbers_have_the_papers_digits_and_our_units() -> None:
    lusd = load_published("lusd_table_2").groups["all"]
    assert list(lusd.index) == ["InstructPix2Pix", "HIVE", "LEDITS++", "DDS", "CDS", "SBP", "LUSD"]
    assert list(lusd.loc["LUSD"]) == ["0.287", "0.074", "0.015", "0.192"]
    assert lusd.loc["InstructPix2Pix", "clip_i_star"] == "0.180"
    pie = load_published("vimaedit_table_1").groups["all"].loc["VI, DDIM(50), ViMAEdit"]
    assert list(pie) == ["0.01265", "28.27", "0.04567", "0.003029", "0.8565", "25.91", "22.96"]
    assert load_published("lusd_table_3").groups["Add"].loc["LUSD", "clip_auc"] == "0.080"
    lime = load_published("lime_table_1").groups["all"]
    assert list(lime.loc["InstructPix2Pix, MagicBrush + LIME"]) == ["0.056", "0.017", "0.939", "0.911", "0.297"]
    assert load_published("lime_table_4").groups["all"].loc["HIVE + LIME", "structure_distance"] == "0.03705"
    with pytest.raises(UserError, match=r"unknown published table 'lusd_table_5'; did you mean .*have .*lusd_table_2, "):
        load_published("lusd_table_5")


def test_tables_of_one_paper_agree() -> None:
    full, ablation = (load_published(f"lusd_table_{n}").groups["all"].loc["LUSD"] for n in (2, 4))
    pd.testing.assert_series_equal(full, ablation)
    few = load_published("lusd_table_3").groups["all"]
    pd.testing.assert_frame_equal(few, load_published("lusd_table_2").groups["all"].loc[few.index, few.columns])


def test_published_rows_stand_below_and_apart(evaluations: dict[str, Evaluation]) -> None:
    published = [load_published("lusd_table_3")]
    table = beside(compare(evaluations, "Add"), published, "Add")
    assert list(table.index) == ["b_run", "a_run", published[0].label, "DDS", "CDS", "LUSD"]
    assert table.loc["LUSD", "clip_t"] == "0.283"
    assert table.loc["LUSD", "l1"] == ""
    lines = to_latex(table, published).splitlines()
    at = lines.index(f"\\multicolumn{{{len(table.columns) + 1}}}{{l}}{{{published[0].label}}} \\\\")
    assert lines[at - 1] == "\\midrule"
    assert lines[at - 2].startswith("a\\_run & ")
    assert lines[at + 1].startswith("DDS & 0.266 &")
    with pytest.raises(UserError, match=r"Table 3, MagicBrush has no group 'Other': have all, Add"):
        beside(compare(evaluations, "Other"), published, "Other")
    with pytest.raises(UserError, match=r"PIE-Bench has no metric that was measured: it has structure_distance, psnr"):
        beside(compare(evaluations), [load_published("pie_bench")], "all")


def test_published_metrics_that_were_not_measured_come_last(evaluations: dict[str, Evaluation]) -> None:
    measured = compare(evaluations)
    assert list(beside(measured, [load_published("lusd_table_6")], "all")) == [*measured, "clip_i", "dino"]


def test_the_axes_of_the_trade_off() -> None:
    assert choose_axes(["clip_t", "clip_auc", "l1", "clip_i"], None, None) == ("l1", "clip_auc")
    assert choose_axes(["clip_edited", "psnr", "clip_t"], None, "clip_t") == ("psnr", "clip_t")
    assert choose_axes(["clip_t", "clip_r", "clip_auc"], None, None) is None
    with pytest.raises(UserError, match="'psnr' was not measured: have clip_t, l1"):
        choose_axes(["clip_t", "l1"], "psnr", None)


def test_default_axes_are_metrics() -> None:
    assert {*PRESERVATION, *FIDELITY} <= {*METRICS.names()}


def test_a_plot_that_cannot_be_made_costs_itself_alone(
    evaluations: dict[str, Evaluation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise ValueError("no\nfont")

    (tmp_path / "trade_off.png").write_bytes(b"of an earlier call")
    monkeypatch.setattr(comparison, "trade_off", broken)
    files, problems = write_comparison(tmp_path, evaluations, compare(evaluations), axes=("l1", "clip_t"))
    assert problems == [f"{tmp_path / 'trade_off.png'} could not be made: ValueError: no font"]
    assert {path.name for path in files} == {"comparison.md", "comparison.tex", "report.html", "success.png"}
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_without_ratios_there_is_no_success(tmp_path: Path) -> None:
    evaluations = {name: evaluation(0.5, ("l1", "psnr")) for name in ("one", "other")}
    files, problems = write_comparison(tmp_path, evaluations, compare(evaluations))
    assert (problems, "success.png" in {path.name for path in files}) == ([], False)


def test_the_trade_off_is_drawn_with_intervals_and_labels_apart(evaluations: dict[str, Evaluation], monkeypatch) -> None:
    """What is drawn is read from matplotlib's own figure."""
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kwargs: (figures.append(self), save(self, *args, **kwargs))[1])
    several = {**evaluations, "nearly_the_same": evaluation(1.001), "undefined": evaluation(np.nan)}
    assert Image.open(BytesIO(trade_off(several, "l1", "clip_t", "all"))).size == (600, 384)
    axes = figures[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("L1   (better ←)", "CLIP-T   (better ↑)")
    assert [text.get_text() for text in axes.texts] == ["b_run", "a_run", "nearly_the_same"]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    row = evaluations["b_run"].summary.loc["all", "l1"]
    across, along = (bars.get_segments()[0] for bars in axes.collections[:2])
    assert across[:, 0] == pytest.approx([row["low"], row["high"]])
    assert along[:, 0] == pytest.approx([row["mean"]] * 2)


def test_the_files_of_a_comparison(evaluations: dict[str, Evaluation], tmp_path: Path) -> None:
    published = [load_published("lusd_table_2")]
    paths, problems = write_comparison(
        tmp_path, evaluations, beside(compare(evaluations), published, "all"), published, axes=("l1", "clip_t")
    )
    assert not problems
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths}
    assert "trade_off.png" in {path.name for path in paths}
    assert "| InstructPix2Pix" in (tmp_path / "comparison.md").read_text()
    assert "0.180" in (tmp_path / "comparison.md").read_text()
    assert published[0].label in (tmp_path / "report.html").read_text()


def test_what_is_undefined_is_shown_as_that_and_not_drawn(tmp_path: Path) -> None:
    """CLIP-R is undefined where no source points the way of its target prompt."""
    one = evaluation(1.0)
    table = one.per_image.assign(clip_r=np.nan)
    undefined = one._replace(per_image=table, summary=summarize_table(table, "clean"))
    shown = compare({"one": undefined})
    assert tuple(shown.loc["one", ["clip_r", "clip_auc"]]) == ("undefined", "undefined")
    files, problems = write_comparison(tmp_path, {"one": undefined, "other": evaluation(0.9)}, shown)
    assert (problems, "success.png" in {path.name for path in files}) == ([], False)


def test_an_evaluation_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*dds; sdist evaluate leaves evaluations/NAME"):
        comparison.compare_folders([tmp_path / "dds"], tmp_path / "out")


def test_published_rows_of_another_clip_or_profile_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    measured = evaluation(1.0)._replace(made_with={"encoders": {"clip": {"id": "tinyworld", "weights": "x"}}, "versions": {}})
    for name, text in {"per_image.csv": measured.per_image.to_csv(), "summary.csv": measured.summary.to_csv()}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "evaluation.json").write_text(to_json(measured))
    comparison.compare_folders([tmp_path], tmp_path / "out", ["lusd_table_2"])
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("--profile official" in line for line in warnings)
    assert any("with CLIP openai/clip-vit-base-patch32, those measured here with tinyworld" in line for line in warnings)
