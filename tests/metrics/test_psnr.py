import numpy as np
import pytest

from sdist.metrics.base import Encoders
from sdist.metrics.psnr import Psnr, background_psnr

from .samples import BOTH, pixel_arrays, sample


@pytest.mark.parametrize(("rows", "expected"), [(0, 20.0), (128, 21.2494), (256, 23.0103), (460, 29.9327)])
def test_background_psnr_of_a_uniform_error(rows: int, expected: float) -> None:
    source = np.full((512, 512, 3), 0.5)
    mask = np.zeros((512, 512), bool)
    mask[:rows] = True
    assert background_psnr(source + 0.1, source, mask, "official") == pytest.approx(expected, abs=1e-4)
    assert background_psnr(source + 0.1, source, mask, "clean") == pytest.approx(20, abs=1e-9)


def test_psnr_of_the_published_code() -> None:
    a, b, mask = pixel_arrays()
    assert background_psnr(b, a, mask, "official") == pytest.approx(21.52202, abs=1e-4)


@BOTH
def test_an_untouched_background_has_no_error_and_no_background_no_value(profile: str) -> None:
    one = sample(0)
    untouched, covered = sample(0, result=one.source), sample(0, mask=np.ones_like(one.mask))
    values = Psnr()([untouched, covered, one], Encoders(), profile)
    assert values[0] == np.inf
    assert np.isnan(values[1])
    assert values[2] == pytest.approx(8, abs=3)  # of noise against noise
