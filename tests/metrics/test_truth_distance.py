import numpy as np
import pytest
from PIL import Image, ImageOps

from sdist.metrics.base import Encoders
from sdist.metrics.truth_distance import TruthDistance, truth_distance

from .samples import BOTH, noise_image, sample


def grey(value: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (value,) * 3)


@BOTH
@pytest.mark.parametrize(("edit", "distance"), [(200, 0), (100, 1), (150, 0.5), (0, 2)])
def test_the_part_of_the_way_that_is_left(profile: str, edit: int, distance: float) -> None:
    assert truth_distance(grey(edit), grey(100), grey(200), profile) == pytest.approx(distance, abs=1e-12)


@BOTH
def test_it_is_of_all_pixels_together(profile: str) -> None:
    one = sample(0)
    edit, source, truth = (np.asarray(image, float) for image in (one.result, one.source, one.truth))
    expected = np.linalg.norm(edit - truth) / np.linalg.norm(source - truth)
    assert TruthDistance()([one], Encoders(), profile) == pytest.approx([expected])


@BOTH
def test_where_nothing_is_to_be_done_there_is_no_way(profile: str) -> None:
    assert np.isnan(truth_distance(grey(5), grey(7), grey(7), profile))


@BOTH
def test_doing_nothing_at_another_size_scores_1(profile: str) -> None:
    source, truth = noise_image(0, 48, 32), noise_image(1, 48, 32)
    edit = ImageOps.fit(source, (24, 24), Image.Resampling.BICUBIC) if profile == "clean" else source.copy()
    assert truth_distance(edit, source, truth, profile) == pytest.approx(1)
