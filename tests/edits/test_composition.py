"""Edits put back into their source: what stays is exact, what changes is where it was edited, and cards say so."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sdist
from sdist.cli import main
from sdist.config.build import load_settings
from sdist.config.settings import CompositionSettings
from sdist.editors.base import Observers
from sdist.edits.composition import composed, soft_mask
from sdist.edits.request import Prepared, Request, Result
from sdist.files.frames import shown_box, square_around, whole_pixels

PROMPTS = ("--source", "a cat", "--target", "a cat wearing a hat")
QUICK = ("--set", "scale.threshold=0.01", "scale.cross_level=1", "scale.self_level=0", "--steps", "2")
RATIOS = (3000 / 512, 3000 / 512, 4000 / 680, 4000 / 680)
SETTINGS = {"scale": {"threshold": 0.01, "cross_level": 1, "self_level": 0}, "steps": 2}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """90 x 60 pixels, which a native edit of the tiny model shows but for the columns at both ends."""
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """White in the middle."""
    white = np.zeros((60, 90), np.uint8)
    white[20:30, 40:55] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def edit(photo: Path, model: Path, output: Path, *more: str) -> int:
    return main(["edit", str(photo), *PROMPTS, "--model", str(model), "--output", str(output), *QUICK, *more])


def pixels(image: Path | Image.Image) -> np.ndarray:
    return np.asarray(Image.open(image) if isinstance(image, Path) else image, int)


def made(source: Image.Image, edited: Image.Image, mask: torch.Tensor | None, settings, path: Path) -> Result:
    """What becomes of an edit of a whole image that was scaled to the size of the edit."""
    source.save(path)
    prepared = Prepared(Request(path, "a", "b"), source.resize(edited.size), None, (), (), box=(0.0, 0.0, *source.size))
    return composed(Result(prepared, edited, mask, (), 1, {}), settings)


# --- from the command line, and again ------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [("--output-size", "source", "--keep-background"), ("--crop", "mask"), ("--crop", "auto")])
def test_outside_of_a_mask_image_pixels_are_those_of_the_file(
    photo: Path, mask: Path, tiny_folder: Path, tmp_path: Path, capsys, more: tuple[str, ...]
) -> None:
    result = tmp_path / "out.png"
    assert edit(photo, tiny_folder, result, "--mask", str(mask), *more) == 0
    changed, inside = (pixels(result) != pixels(photo)).any(-1), pixels(mask) > 0
    assert changed.shape == (60, 90)
    assert not (changed & ~inside).any()
    assert changed[inside].mean() > 0.9
    card = json.loads((tmp_path / "out.json").read_text())
    assert (card["size"], card["composition"]["mask"]) == ([90, 60], "image")
    assert card["composition"]["kept"] == pytest.approx(1 - inside.mean(), abs=1e-5)
    assert Image.open(tmp_path / "out_panel.png").height == 256
    capsys.readouterr()
    assert main(["replay", str(result)]) == 0
    assert capsys.readouterr().out == "identical\n"


def test_a_mask_that_keeps_nothing_is_said(photo: Path, tiny_folder: Path, tmp_path: Path, caplog) -> None:
    Image.new("L", (90, 60), 255).save(tmp_path / "white.png")
    assert edit(photo, tiny_folder, tmp_path / "out.png", "--mask", str(tmp_path / "white.png"), "--keep-background") == 0
    assert "photo.png: no pixel is kept: there is no mask, or it covers the whole image" in caplog.text


def test_twelve_megapixels_come_back_with_a_small_edit(tiny_folder: Path, tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(3000) // 20, np.arange(4000) // 40).astype(np.uint8)
    Image.merge("RGB", [Image.fromarray(channel) for channel in (ramp, ramp[::-1], ramp.T.reshape(3000, 4000))]).save(
        tmp_path / "photo.png", compress_level=1
    )
    white = np.zeros((3000, 4000), bool)
    white[1200:1700, 2500:3100] = True
    Image.fromarray(white).save(tmp_path / "mask.png")
    result, more = tmp_path / "out.png", ("--output-size", "source", "--keep-background", "--crop", "mask")
    assert edit(tmp_path / "photo.png", tiny_folder, result, "--mask", str(tmp_path / "mask.png"), *more) == 0
    with Image.open(result) as after, Image.open(tmp_path / "photo.png") as before:
        changed = (np.asarray(after) != np.asarray(before)).any(-1)
    assert changed.shape == (3000, 4000)
    assert not changed[~white].any()
    assert changed[white].mean() > 0.9


def test_at_the_size_of_the_edit_what_stays_is_the_image_as_it_was_edited(
    picture: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    white = np.zeros((32, 32), np.uint8)
    white[:, :16] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    options = {"source": "a cat", "target": "a cat wearing a hat", "model": str(tiny_folder), "settings": SETTINGS}
    result = sdist.edit(picture, mask=tmp_path / "mask.png", keep_background=True, progress=False, **options)
    changed = (pixels(result.image) != pixels(picture)).any(-1)
    assert not changed[:, 16:].any()
    assert changed[:, :16].mean() > 0.9
    assert result.card["composition"] == {"mask": "image", "kept": 0.5}


def test_a_crop_edits_a_square_of_the_models_size_around_the_mask(photo: Path, mask: Path, tiny_folder: Path) -> None:
    method = sdist.load(model=str(tiny_folder), settings={**SETTINGS, "crop": "mask"})
    request = Request(photo, "a cat", "a cat wearing a hat", mask=mask)
    prepared = method.prepare(request)
    assert prepared.box == (32.0, 9.0, 64.0, 41.0)
    assert method.check(request) == prepared.image.size == prepared.mask.size == (32, 32)
    assert np.array_equal(prepared.image, pixels(photo)[9:41, 32:64])
    assert np.array_equal(prepared.mask, pixels(mask)[9:41, 32:64])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--crop", "mask"), "--crop mask needs a mask image"),
        (("--keep-background", "--method", "dds"), "--keep-background needs a mask, and this method makes none"),
        (("--set", "composition.grow=2"), "composition.grow is 0 or more and below 1, got 2.0"),
        (("--set", "output_size=large"), "output_size"),
    ],
)
def test_what_cannot_be_is_one_line(photo: Path, tiny_folder: Path, tmp_path: Path, capsys, more: tuple, said: str) -> None:
    assert edit(photo, tiny_folder, tmp_path / "out", *more) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("sdist: error:"))
    assert said in line


def test_an_empty_mask_has_nothing_to_crop_around(photo: Path, tiny_folder: Path, tmp_path: Path) -> None:
    Image.new("L", (90, 60)).save(tmp_path / "mask.png")
    with pytest.raises(sdist.UserError, match="is empty: there is nothing to crop around"):
        sdist.load(model=str(tiny_folder), settings={"crop": "auto"}).check(
            Request(photo, "a cat", "a cat wearing a hat", mask=tmp_path / "mask.png")
        )


def test_editors_that_read_no_mask_are_kept_inside_of_one(photo: Path, mask: Path, tiny_folder: Path) -> None:
    method = sdist.load("sdedit", str(tiny_folder), settings={"editor.num_inference_steps": 4, "crop": "mask"})
    (result,) = method.edit([method.prepare(Request(photo, "a cat", "a dog", mask=mask))])
    changed = (pixels(result.image) != pixels(photo)).any(-1)
    assert changed.any()
    assert not changed[pixels(mask) == 0].any()


def test_a_run_keeps_what_the_methods_masks_leave_out(photo: Path, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "images").mkdir(parents=True)
    photo.rename(tmp_path / "in" / "images" / "photo.png")
    (tmp_path / "in" / "index.csv").write_text("img_path,source_prompt,target_prompt\nphoto.png,a cat,a cat wearing a hat\n")
    options = {"model": str(tiny_folder), "keep_background": True, "output_size": "source", "crop": "auto"}
    settings = {**SETTINGS, "composition": {"threshold": 0.7, "grow": 0, "feather": 0}}
    run = sdist.run(tmp_path / "in", tmp_path / "out", settings=settings, **options)
    assert (run.made, run.problems) == (1, ())
    (file,) = tmp_path.glob("out/*_seed0.png")
    card = json.loads(file.with_suffix(".json").read_text())
    same = (pixels(file) == pixels(tmp_path / "in" / "images" / "photo.png")).all(-1)
    assert (card["size"], card["composition"]["mask"]) == ([90, 60], "method")
    assert 0 < card["composition"]["kept"] <= same.mean() < 1
    assert sdist.run(tmp_path / "in", tmp_path / "out", settings=settings, **options).made == 0


def test_rows_have_masks_of_their_own(photo: Path, mask: Path, tiny_folder: Path, tmp_path: Path) -> None:
    index(tmp_path, ("photo.png", "mask.png"), ("photo.png", ""))
    for file in (photo, mask):
        (tmp_path / "in" / f"{'images' if file is photo else 'masks'}" / file.name).write_bytes(file.read_bytes())
    run = sdist.run(tmp_path / "in", tmp_path / "out", model=str(tiny_folder), settings=SETTINGS, crop="mask")
    assert (run.made, len(run.problems)) == (1, 1)
    assert "index.csv line 3: --crop mask needs a mask image (--mask IMAGE, or the column mask of index.csv)" in run.problems[0]
    (file,) = tmp_path.glob("out/*_seed0.png")
    changed, inside = (pixels(file) != pixels(photo)).any(-1), pixels(mask) > 0
    assert not (changed & ~inside).any()
    assert changed[inside].mean() > 0.9
    assert main(["replay", str(file)]) == 0


def index(folder: Path, *rows: tuple[str, str]) -> None:
    """in/index.csv with a mask to each image, in the folders that it needs."""
    for name in ("images", "masks"):
        (folder / "in" / name).mkdir(parents=True)
    lines = [f"{image},a cat,a cat wearing a hat,{mask}" for image, mask in rows]
    (folder / "in" / "index.csv").write_text("\n".join(["img_path,source_prompt,target_prompt,mask", *lines]))


def test_results_that_are_delivered_need_not_be_kept(photo: Path, tiny_folder: Path) -> None:
    """So that a run holds one photograph, not those of a queue."""
    method, there = sdist.load("dds", tiny_folder, settings={"steps": 1, "output_size": "source"}), []
    batch = [method.prepare(Request(photo, "a cat", "a dog", seed)) for seed in (0, 1)]
    assert method.edit(batch, Observers(deliver=lambda result: there.append(result.image.size), keeps=False)) == []
    assert there == [(90, 60)] * 2


# --- parts ---------------------------------------------------------------------------------------------------------------


def test_a_photograph_of_12_megapixels_comes_back_as_one(tmp_path: Path) -> None:
    """What was not changed in the edit is not changed by a value; what was is where it was."""
    rows, columns = np.mgrid[:3000, :4000]
    grain = np.random.default_rng(0).integers(0, 8, (3000, 4000))
    source = Image.fromarray(np.stack([rows // 13, columns // 17, grain], -1).astype(np.uint8))
    edited = pixels(source.resize((680, 512)))
    edited[100:200, 300:400] += 20
    settings = load_settings("lusd", output_size="source")
    image = made(source, Image.fromarray(edited.astype(np.uint8)), None, settings, tmp_path / "photo.bmp").image
    change = pixels(image) - pixels(source)
    top, bottom, left, right = (round(side * scale) for side, scale in zip((100, 200, 300, 400), RATIOS, strict=True))
    assert image.size == (4000, 3000)
    assert (change[top + 20 : bottom - 20, left + 20 : right - 20] == 20).all()
    change[top - 20 : bottom + 20, left - 20 : right + 20] = 0
    assert not change.any()


def test_pixels_replace_what_was_there_or_their_change_is_added(tmp_path: Path) -> None:
    source = Image.fromarray(np.random.default_rng(1).integers(0, 200, (64, 64, 3), np.uint8))
    edited = Image.new("RGB", (32, 32), (200, 100, 50))
    settings = load_settings("lusd", ["composition.paste=pixels"], output_size="source")
    assert set(made(source, edited, None, settings, tmp_path / "a.png").image.getdata()) == {(200, 100, 50)}
    added = made(source, edited, None, load_settings("lusd", output_size="source"), tmp_path / "a.png").image
    assert pixels(added).std() > 10


def test_where_a_methods_mask_is_low_nothing_changes(tmp_path: Path) -> None:
    mask = torch.zeros(1, 16, 16)
    mask[:, 4:8, 4:8] = 0.6
    source, edited = Image.new("RGB", (128, 128), "gray"), Image.new("RGB", (64, 64), "white")
    settings = load_settings("lusd", keep_background=True, output_size="source")
    result = made(source, edited, mask, settings, tmp_path / "a.png")
    changed = pixels(result.image)[..., 0] > 128
    assert changed[32:64, 32:64].all()
    assert not changed[:, :26].any()
    assert not changed[70:].any()
    assert result.composition["kept"] == pytest.approx(1 - changed.mean(), abs=0.02)
    assert made(source, edited, mask * 0 + 1, settings, tmp_path / "a.png").composition["kept"] == 0


def test_a_soft_mask_is_whole_inside_and_zero_beyond_its_edge() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[:, 2:4, 3:6] = 0.7
    hard = soft_mask(mask, (64, 64), CompositionSettings(grow=0, feather=0))
    soft = soft_mask(mask, (64, 64), CompositionSettings(grow=1 / 32, feather=1 / 32))
    assert set(np.unique(hard)) == {0, 1}
    assert hard.sum() == 2 * 3 * 64
    assert (soft[hard == 1] == 1).all()
    assert soft[16 - 4 : 32 + 4, 24 - 4 : 48 + 4].sum() == soft.sum()
    assert np.array_equal(soft_mask(mask, (64, 64), CompositionSettings(threshold=0.7)), np.zeros((64, 64), np.float32))


@pytest.mark.parametrize(
    ("white", "square"),
    [
        ((40, 20, 55, 30), (32, 9, 64, 41)),  # no smaller than the model's native side
        ((0, 0, 4, 4), (0, 0, 32, 32)),
        ((10, 10, 50, 20), (0, 0, 80, 60)),  # twice as wide, as far as there is image
        ((0, 0, 90, 60), (0, 0, 90, 60)),
    ],
)
def test_the_square_around_a_mask(white: tuple[int, ...], square: tuple[int, ...]) -> None:
    mask = Image.new("L", (90, 60))
    mask.paste(255, white)
    assert square_around(mask, (90, 60), 32, "m") == square
    doubled = mask.resize((180, 120), Image.Resampling.NEAREST)
    assert square_around(doubled, (90, 60), 32, "m") == square


def test_the_part_that_an_edit_shows() -> None:
    assert shown_box((100, 40), (32, 32), "native") == (30.0, 0.0, 70.0, 40.0)
    assert shown_box((101, 43), (96, 40), "keep") == (2.0, 1.0, 98.0, 41.0)
    assert whole_pixels((0.5, 1 - 1e-9, 9.5, 10 + 1e-9)) == (1, 1, 9, 10)
