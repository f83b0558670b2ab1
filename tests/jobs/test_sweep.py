"""Sweeps: what a yaml means, what is refused before anything is made, and whole sweeps through the real command line."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.config.methods import shipped
from sdist.config.sweep import Variant, changes, read_sweep
from sdist.editors.loading import load_method
from sdist.errors import UserError
from sdist.files.contact_sheet import CELL, GAP, LINE, block, stack
from sdist.files.images import load_image

from ..encoders import clip_folder  # noqa: F401
from ..test_cli import error, listed, pixels_of, run_arguments, write_index  # noqa: F401

SHIPPED = {
    "ablation": 5,
    "lambda": 5,
    "eta_0": 4,
    "t_min": 4,
    "t_max": 4,
    "grid_dds": 16,
    "grid_cds": 16,
    "vimaedit_ablation": 5,
    "localflow": 64,
}
GRID = "base: dds\ngrid: {optimizer.lr: {low: 0.01, high: 0.02}, loss.guidance_scale: [1, 3, 7.5]}\n"


def write(folder: Path, text: str, name: str = "own") -> str:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return str(path)


# --- what a yaml means -------------------------------------------------------------------------------------------------


def test_variants_are_methods_or_overrides_of_the_base(tmp_path: Path) -> None:
    text = (
        "base: lusd\nvariants:\n  whole:\n  dds: dds\n  few: {steps: 5, filter.decay: 0.9, regularizers: {source_pull: null}}\n"
    )
    assert read_sweep(write(tmp_path, text)).variants == (
        Variant("whole", "lusd"),
        Variant("dds", "dds"),
        Variant("few", "lusd", ("steps=5", "filter.decay=0.9", "regularizers={source_pull: null}")),
    )
    assert read_sweep(write(tmp_path, "variants: [lusd, dds]")).variants == (Variant("lusd", "lusd"), Variant("dds", "dds"))


def test_a_grid_is_a_product_named_by_the_last_parts_of_its_keys(tmp_path: Path) -> None:
    sweep = read_sweep(write(tmp_path, GRID))
    assert [v.name for v in sweep.variants[:4]] == [
        "lr=low,guidance_scale=1", "lr=low,guidance_scale=3", "lr=low,guidance_scale=7.5", "lr=high,guidance_scale=1",
    ]  # fmt: skip
    assert sweep.variants[4] == Variant("lr=high,guidance_scale=3", "dds", ("optimizer.lr=0.02", "loss.guidance_scale=3"))
    assert sweep.axes == {"lr": ("low", "high"), "guidance_scale": ("1", "3", "7.5")}
    text = "grid: {base: [lusd, sbp], filter.name: [std_threshold], loss.name: [sbp]}"
    first, second = read_sweep(write(tmp_path, text)).variants
    assert (first.name, second.method) == ("base=lusd,filter.name=std_threshold,loss.name=sbp", "sbp")


def test_overrides_are_read_as_the_command_line_reads_them(tmp_path: Path) -> None:
    entry = "{loss: {name: combination, edit_target: 1, edit_negative: {0: 0, 200: -1}}, optimizer.lr: '${scale.step}'}"
    (variant,) = read_sweep(write(tmp_path, f"base: dds\nvariants: {{own: {entry}}}")).variants
    settings = load_settings(variant.method, variant.overrides)
    assert settings.editor.loss.edit_negative == {0: 0, 200: -1}
    assert settings.editor.optimizer.lr == settings.scale.step


def test_changes_lead_from_one_method_to_another() -> None:
    changed = changes(load_settings("lusd").plain(), load_settings("lusd_no_spatial", ["loss=dds", "steps=7"]).plain())
    assert sorted(changed) == [
        "loss={guidance_scale: 7.5, name: dds, weighting: uniform}",
        "regularizers.attention_mask=null",
        "regularizers.source_pull=null",
        "steps=7",
    ]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sweeps(name: str, capsys) -> None:
    assert main(["sweep", name, "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + SHIPPED[name]
    header = shipped("sweep")[name].read_text().splitlines()[:2]
    assert all(line.startswith("# ") for line in header)
    assert f"sdist sweep {name} " in header[1]


def test_all_shipped_sweeps_are_counted_and_none_is_a_method(capsys) -> None:
    assert set(shipped("sweep")) == set(SHIPPED)
    assert main(["methods"]) == 0
    printed = capsys.readouterr().out
    assert not any(f"\n  {name} " in printed for name in SHIPPED.keys() - shipped("method").keys())


def test_grids_of_the_paper_hold_its_default_and_object_configurations() -> None:
    for name in ("dds", "cds"):
        points = {v.name: load_settings(v.method, v.overrides) for v in read_sweep(f"grid_{name}").variants}
        assert points["lr=0.1,guidance_scale=7.5"] == load_settings(name)
        assert points["lr=0.25,guidance_scale=15"] == load_settings(f"{name}_object")


def test_listing_says_what_differs_from_the_base(tmp_path: Path, capsys) -> None:
    text = "base: lusd\nvariants: {whole: , less: {filter: null}, other: lusd_no_annealing}"
    assert main(["sweep", write(tmp_path, text), "--list", "--set", "optimizer.lr=3"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "own: 3 variants, and what they change against lusd",
        "  whole",
        "  less   filter=null",
        "  other  gamma={name: constant, value: 1.0}",
    ]


# --- what is refused ---------------------------------------------------------------------------------------------------

BAD = {
    "a: [": "own.yaml cannot be read",
    "!!python/object/apply:os.system ['true']": "cannot be read",
    "variants: {a: lusd, a: dds}": "duplicate key a",
    "[lusd]": "a sweep is a mapping",
    "base: lusd": "needs one of variants",
    "variants: [lusd]\ngrid: {steps: [1]}": "needs one of variants",
    "varians: [lusd]": "own.yaml: unknown key 'varians'; did you mean 'variants'? have base, grid, search, variants",
    "variants: []": "variants is empty",
    "variants: 5": "variants cannot be 5",
    "variants: [{a: lusd}]": "a list of variants names methods",
    "variants: [lusd, lusd]": "two variants are called lusd",
    "base: lusd\nvariants: {off: {filter: null}}": "a name was read as false",
    "base: lusd\ngrid: {filter: {off: null}}": "a name was read as false",
    "base: lusd\nvariants: {a: 5}": "variant a is a method or {KEY: VALUE}, got 5",
    "variants: {a: {steps: 5}}": "variant a has no base: write a: METHOD (such as a: lusd), or base: METHOD for all",
    "variants:\n  dds:": "variant dds has no base: write dds: METHOD (such as dds: dds)",
    "base: lusd\nvariants: {../a: {steps: 5}}": "variant '../a' cannot name a folder",
    "base: lusd\nvariants: {evaluation: {steps: 5}}": "evaluation and comparison are taken",
    "base: lusd\ngrid: {}": "grid is empty",
    "base: lusd\ngrid: [steps]": "grid is {KEY: [VALUE, ...]}",
    "base: lusd\ngrid: {steps: []}": "grid: steps has no values",
    "base: lusd\ngrid: {steps: 5}": "grid: steps needs a list of values",
    "base: lusd\ngrid: {steps: [5, 6, 5]}": "grid: steps has 5 twice",
    "grid: {steps: [5, 6]}": "variant steps=5 has no base",
    "base: lusd\ngrid: {loss: [{name: dds}]}": "names by {LABEL: VALUE}",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_sweeps_are_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        read_sweep(write(tmp_path, text))
    assert BAD[text] in " ".join(str(raised.value).split())


def test_a_sweep_that_does_not_exist() -> None:
    with pytest.raises(UserError, match=r"unknown sweep 'ablatio' in .*did you mean 'ablation'"):
        read_sweep("ablatio")
    with pytest.raises(UserError, match=r"sweep file nowhere.yaml does not exist"):
        read_sweep("nowhere.yaml")


LATE = {
    "an unknown method": ("variants: [lusd, lus]", "sweep own, variant lus: unknown method 'lus'", "did you mean 'lusd'"),
    "an unknown key": ("base: dds\ngrid: {optimizer.lrr: [1]}", "variant lrr=1: unknown key 'lrr'", "did you mean 'lr'"),
    "a refused value": ("base: lusd\ngrid: {filter.decay: [0.9, 2]}", "variant decay=2: ", "decay within 0..1"),
    "the same twice": ("base: dds\nvariants: {a: , b: {steps: 2}}", "sweep own: a and b come to the same settings", ""),
    "a timestep past the end": ("base: dds\ngrid: {timesteps.t_max: [500, 5000]}", "t_max=5000", "last timestep is 999"),
}


@pytest.mark.parametrize("name", LATE)
def test_bad_variants_are_known_before_anything_is_made(
    name: str, listed: Path, tiny_folder: Path, tmp_path: Path, capsys  # noqa: F811
) -> None:  # fmt: skip
    text, *messages = LATE[name]
    arguments = run_arguments(listed, tiny_folder, tmp_path / "out")[1:]
    assert main(["sweep", write(tmp_path, text), *arguments]) == 2
    printed = error(capsys)
    assert all(message in printed for message in messages)
    assert not list((tmp_path / "out").rglob("*.png"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "needs --input and --output"),
        (["--input", "x", "--output", "y", "--rows", "0"], "--rows must be at least 1, got 0"),
        (["--input", "x", "--output", "y", "--first", "0"], "--first must be at least 1, got 0"),
        (["--input", "x", "--output", "y", "--dino", "z"], "which --clip asks for"),
    ],
)
def test_bad_arguments(more: list[str], message: str, capsys) -> None:
    assert main(["sweep", "ablation", *more]) == 2
    assert message in error(capsys)


# --- whole sweeps ------------------------------------------------------------------------------------------------------


def sweep(text: str, folder: Path, model: Path, work: Path, *more: str) -> int:
    return main(["sweep", write(work, text), *run_arguments(folder, model, work / "out", *more)[1:]])


def times(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.glob("*/*") if path.is_file()}


TWO = "variants: {plain: dds, small: {base: dds, optimizer.lr: 0.001}}"


def test_every_variant_is_what_run_makes_with_one_loaded_model(
    listed: Path, tiny_folder: Path, tmp_path: Path, monkeypatch, capsys  # noqa: F811
) -> None:  # fmt: skip
    loaded = []
    monkeypatch.setattr("sdist.editors.loading.load_method", lambda settings: loaded.append(1) or load_method(settings))
    assert sweep(TWO, listed, tiny_folder, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "plain: 4 of 4 made, 0 already there, 0 failed" in printed
    assert "8 of 8 made, 0 already there, 0 failed\n" in printed
    assert len(loaded) == 1
    alone = ("--method", "dds", "--set", "optimizer.lr=0.001")
    assert main(run_arguments(listed, tiny_folder, tmp_path / "alone", *alone)) == 0
    expected = pixels_of(tmp_path / "alone")
    for name, pixels in pixels_of(tmp_path / "out" / "small").items():
        assert np.array_equal(pixels, expected[name])
    plain = pixels_of(tmp_path / "out" / "plain")["0_seed0.png"]
    assert not np.array_equal(plain, expected["0_seed0.png"])


def test_only_what_is_missing_is_made_again(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    assert sweep(TWO, listed, tiny_folder, tmp_path, "--first", "2") == 0
    before = times(tmp_path / "out")
    assert len(before) == 2 * 2 * 3
    pixels = np.asarray(Image.open(tmp_path / "out" / "small" / "1_seed0.png"))
    (tmp_path / "out" / "small" / "1_seed0.png").unlink()
    capsys.readouterr()
    assert sweep(TWO, listed, tiny_folder, tmp_path, "--first", "2") == 0
    assert "1 of 4 made, 3 already there" in capsys.readouterr().out
    after = times(tmp_path / "out")
    assert {name for name in after if after[name] != before.get(name)} == {
        f"small/1_seed0{end}" for end in (".png", "_panel.png", ".json")
    }
    assert np.array_equal(Image.open(tmp_path / "out" / "small" / "1_seed0.png"), pixels)
    assert sweep(TWO.replace("0.001", "0.002"), listed, tiny_folder, tmp_path, "--first", "2") == 2
    assert "small/0_seed0.png was made with different optimizer" in error(capsys)


def test_problems_of_one_variant_do_not_end_the_others(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    write_index(listed, [["0.png", "a cat", "a dog"], ["none.png", "a", "b"]])
    text = "base: dds\nvariants: {far: {optimizer.lr: 1.0e+38}, near: {}}"
    assert sweep(text, listed, tiny_folder, tmp_path) == 2
    captured = capsys.readouterr()
    assert [line for line in captured.err.splitlines() if "none.png" in line] == [
        f"sdist: error: index.csv line 3: image 'none.png' does not exist in {listed / 'images'}"
    ]
    assert "sdist: error: far: 0.png" in captured.err
    assert "1 of 4 made, 0 already there, 1 failed, 2 refused" in captured.out
    assert (tmp_path / "out" / "near" / "0_seed0.png").exists()
    with Image.open(tmp_path / "out" / "grid.png") as image:
        assert image.getpixel((CELL + GAP + 90, 2 * LINE + 90)) == (211, 211, 211)


def recorded_run(path: Path) -> Any:
    """How an offline run of wandb names itself: the file is 7 bytes, then records of checksum (4), length (2), kind (1), data."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, start = path.read_bytes(), 7
    while True:
        end = start + 7 + int.from_bytes(data[start + 4 : start + 6], "little")
        record = Record.FromString(data[start + 7 : end])
        if record.HasField("run"):
            return record.run
        start = end


def test_runs_of_a_sweep_are_one_wandb_group(listed: Path, tiny_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    assert sweep(TWO, listed, tiny_folder, tmp_path, "--first", "1", "--log", "wandb") == 0
    for variant in ("plain", "small"):
        (path,) = (tmp_path / "out" / variant / "logs" / "wandb").glob("offline-run-*/run-*.wandb")
        run = recorded_run(path)
        assert (run.run_group, run.display_name) == ("own", f"{variant}-0_seed0")


def test_grid_shows_two_keys_as_a_matrix(listed: Path, tiny_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    assert sweep(GRID, listed, tiny_folder, tmp_path, "--first", "2", "--rows", "1", "--log", "csv") == 0
    sheet = load_image(tmp_path / "out" / "grid.png")
    left = sheet.width - 4 * (CELL + GAP)
    assert left > 0
    assert sheet.height == 2 * LINE + 2 * (CELL + GAP)
    corner = (left + 3 * (CELL + GAP), 2 * LINE)
    right = load_image(tmp_path / "out" / "lr=low,guidance_scale=7.5" / "0_seed0.png").resize(
        (CELL, CELL), Image.Resampling.LANCZOS
    )
    assert np.array_equal(sheet.crop((*corner, corner[0] + CELL, corner[1] + CELL)), right)
    under_the_source = sheet.crop((left, 2 * LINE + CELL + GAP, left + CELL, sheet.height))
    assert under_the_source.getextrema() == ((255, 255),) * 3


def test_evaluation_and_comparison_of_all_variants(
    listed: Path, tiny_folder: Path, clip_folder: Path, tmp_path: Path, capsys  # noqa: F811
) -> None:  # fmt: skip
    more = ("--clip", str(clip_folder), "--log", "csv", "--set", "log.images_every=1", "--quiet")
    assert sweep(TWO, listed, tiny_folder, tmp_path, *more, "--first", "3") == 0
    printed = capsys.readouterr().out
    assert "| plain " in printed
    assert "| small " in printed
    assert (tmp_path / "out" / "comparison" / "comparison.md").exists()
    mine = tmp_path / "out" / "evaluation" / "small" / "per_image.csv"
    assert list(pd.read_csv(mine, dtype={"key": str})["key"]) == ["000", "001", "002"]
    assert sweep(TWO, listed, tiny_folder, tmp_path, *more) == 0
    alone = ["evaluate", "--dataset", f"index:{listed}", "--results", str(tmp_path / "out" / "small"), "--quiet"]
    assert main([*alone, "--clip", str(clip_folder), "--output", str(tmp_path / "alone")]) == 0
    assert (tmp_path / "alone" / "per_image.csv").read_bytes() == mine.read_bytes()


def test_an_evaluation_that_cannot_be_is_known_before_the_edits(
    listed: Path, tiny_folder: Path, tmp_path: Path, capsys  # noqa: F811
) -> None:  # fmt: skip
    assert sweep(TWO, listed, tiny_folder, tmp_path, "--clip", str(tmp_path / "nowhere")) == 2
    assert "nowhere" in error(capsys)
    assert not (tmp_path / "out" / "plain").exists()


# --- sheets ------------------------------------------------------------------------------------------------------------


def ink(image: Image.Image, box: tuple[int, int, int, int]) -> bool:
    return bool((np.asarray(image.crop(box).convert("L")) < 128).any())


def test_names_stand_over_their_pictures() -> None:
    red, blue = Image.new("RGB", (64, 32), "red"), Image.new("RGB", (64, 32), "blue")
    sheet = block("", ["source", ""], [("", [red, blue]), ("", [None, red])])
    assert sheet.size == (2 * (CELL + GAP), 2 * LINE + 2 * (CELL // 2 + GAP))
    assert ink(sheet, (0, LINE, CELL, 2 * LINE))
    assert not ink(sheet, (CELL + GAP, LINE, sheet.width, 2 * LINE))
    assert sheet.getpixel((CELL + GAP, 2 * LINE)) == (0, 0, 255)
    assert sheet.getpixel((0, 2 * LINE + CELL // 2 + GAP)) == (255, 255, 255)
    labelled = block("a caption", ["source", "x"], [("lr=0.1", [red, blue])])
    left = labelled.width - 2 * (CELL + GAP)
    middle = 2 * LINE + CELL // 4
    assert ink(labelled, (0, middle - LINE, left, middle + LINE))
    assert labelled.getpixel((left, 2 * LINE)) == (255, 0, 0)


def test_long_names_and_captions_break_into_lines() -> None:
    image = Image.new("RGB", (8, 8))
    short, long = block("", ["a"], [("", [image])]), block("", ["n" * 60], [("", [image])])
    assert long.width == short.width
    assert long.height > short.height
    assert ink(long, (0, 2 * LINE, CELL, 3 * LINE))


def test_blocks_are_stacked_at_the_left() -> None:
    sheet = stack([Image.new("RGB", (10, 5), "red"), Image.new("RGB", (20, 6), "blue")])
    assert sheet.size == (20, 11 + GAP)
    assert sheet.getpixel((15, 2)) == (255, 255, 255)
    assert sheet.getpixel((19, 5 + GAP)) == (0, 0, 255)
