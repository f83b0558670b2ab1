"""What measures the embedded model: facts, agreement, the area under a curve, the table of methods."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.compare_methods import fill, interval
from experiments.edit_measures import background_error, is_success, most_changed
from sdist.tinyworld.compositions import HELD_OUT, has_held_out
from sdist.tinyworld.drawing import PALETTE
from sdist.tinyworld.edits import sample_edit
from sdist.tinyworld.judge import Facts, Judge, facts
from sdist.tinyworld.objects import NOUNS
from sdist.tinyworld.quality import Agreement, agreement, auc, captioned_scenes, held_out_scenes, ratio
from sdist.tinyworld.truth import autoencoded, distance


def test_facts_are_those_of_the_caption() -> None:
    for scene, text in captioned_scenes(5, 30):
        shown = facts(scene)
        assert all(f"{colour} {noun}" in text for noun, colour in shown.pairs)
        assert len(shown.nouns) == sum(f" {noun}" in text for noun in NOUNS)


def test_captions_hold_no_held_out_composition_and_its_own_scenes_all() -> None:
    assert not any(has_held_out(scene) for scene, _ in captioned_scenes(6, 200))
    found = [facts(scene).pairs for scene in held_out_scenes(6, len(HELD_OUT))]
    assert {pair for pairs in found for pair in pairs} == set(HELD_OUT)
    assert all(noun in NOUNS and colour in PALETTE for noun, colour in HELD_OUT)


def test_agreement_counts_nouns_and_then_their_colours() -> None:
    truth = Facts("snow", frozenset({("cat", "red"), ("hat", "blue"), ("sun", "white")}))
    seen = Facts("night", frozenset({("cat", "red"), ("hat", "green"), ("boat", "white")}))
    assert agreement(truth, seen) == Agreement(nouns=3, nouns_found=2, colours_right=1, place_right=False)
    assert ratio([agreement(truth, seen), agreement(truth, truth)], "colours_right", "nouns_found") == 4 / 5


@pytest.mark.parametrize(("sign", "expected"), [(1, 1.0), (-1, 0.0)])
def test_the_area_under_the_curve_of_a_perfect_and_of_an_inverted_map(sign: int, expected: float) -> None:
    mask = np.zeros((32, 32), bool)
    mask[8:16, 4:20] = True
    assert auc(sign * torch.from_numpy(mask).float()[None, None], mask) == expected


def test_the_area_under_the_curve_of_noise_is_a_half() -> None:
    mask = np.arange(64 * 64).reshape(64, 64) % 3 == 0
    assert auc(torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)), mask) == pytest.approx(0.5, abs=0.03)


def test_distance_to_the_truth_is_1_for_the_source_and_0_for_the_target() -> None:
    pair = sample_edit(9, 0, "recolour")
    truth = autoencoded(pair, lambda pixels: pixels)
    found = [distance(pair, image, truth) for image in (pair.source_image, pair.target_image)]
    assert found == pytest.approx([1, 0], abs=1e-6)
    grey = Image.new("RGB", pair.source_image.size, (128, 128, 128))
    halved = distance(pair, grey, autoencoded(pair, lambda pixels: pixels / 2))  # the reconstruction is what is compared with
    assert halved == pytest.approx(
        np.linalg.norm(np.asarray(pair.target_image) / 255 - 0.5 - 2 * (128 / 255 - 0.5))
        / np.linalg.norm((np.asarray(pair.source_image) - np.asarray(pair.target_image, float)) / 255),
        rel=1e-4,
    )  # fmt: skip
    assert distance(sample_edit(9, 0, "add"), grey, truth) is None


def test_success_needs_what_was_asked_and_all_the_rest() -> None:
    pair = sample_edit(9, 0, "recolour")
    before, after = facts(pair.before), facts(pair.after)
    assert is_success(pair, after)
    assert not is_success(pair, before)
    assert not is_success(pair, Facts(after.place, after.pairs | before.pairs))
    assert not is_success(pair, replace_place(after))


def replace_place(seen: Facts) -> Facts:
    return seen._replace(place="night" if seen.place != "night" else "snow")


def changed_inside(image: Image.Image, mask: np.ndarray, by: int) -> Image.Image:
    pixels = np.asarray(image).astype(int)
    pixels[mask] = (pixels[mask] + by) % 256
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("kind", ["attach", "recolour", "remove", "background"])
def test_only_what_lies_outside_the_change_is_an_error(kind: str) -> None:
    pair = sample_edit(9, 1, kind)
    assert background_error(pair, pair.source_image) == 0
    assert background_error(pair, changed_inside(pair.source_image, pair.mask > 0.5, 90)) == 0
    assert background_error(pair, changed_inside(pair.source_image, pair.mask < 0.01, 90)) > 20


def test_an_addition_may_stand_anywhere_but_the_rest_counts() -> None:
    pair = sample_edit(9, 1, "add")
    square = np.zeros((128, 128), bool)
    square[70:80, 10:20] = True
    assert background_error(pair, changed_inside(pair.source_image, square, 90)) == 0
    assert background_error(pair, changed_inside(pair.source_image, ~square, 90)) > 20


def test_the_most_changed_square_is_found() -> None:
    difference = np.zeros((40, 40))
    difference[20:25, 30:35] = 1
    like = np.zeros((40, 40), bool)
    like[3:10, 3:10] = True
    found = most_changed(difference, like)
    assert found.sum() == 49
    assert found[20:25, 30:35].all()


def test_intervals_hold_the_mean_and_shrink() -> None:
    values = np.random.default_rng(0).normal(5, 1, 400)
    few, many = interval(values[:20]), interval(values)
    assert few[1] < few[0] < few[2]
    assert many[2] - many[1] < few[2] - few[1]


def test_the_judge_reads_pixels() -> None:
    pairs, places = Judge()(torch.zeros(2, 3, 128, 128))
    assert pairs.shape == (2, len(NOUNS), len(PALETTE))
    assert places.shape == (2, 5)


def test_a_part_of_a_page_is_replaced_and_the_rest_is_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# By hand\n\n<!-- table -->\nold\n<!-- /table -->\n\nMore by hand.\n")
    fill(page, "table", "new\n")
    fill(page, "curve", "drawn\n")
    assert page.read_text() == (
        "# By hand\n\n<!-- table -->\nnew\n<!-- /table -->\n\nMore by hand.\n<!-- curve -->\ndrawn\n<!-- /curve -->\n"
    )
