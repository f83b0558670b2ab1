import numpy as np
import pytest

from sdist.errors import UserError
from sdist.metrics.base import Encoders
from sdist.metrics.mse import Mse, background_mse
from sdist.metrics.psnr import background_psnr
from sdist.metrics.ssim import background_ssim

from .samples import BOTH, PROFILES, noise_image, pixel_arrays, sample


@BOTH
def test_changes_inside_the_mask_are_free(profile: str) -> None:
    a, b, mask = pixel_arrays()
    b = np.where(mask[:, :, None], b, a)
    assert background_mse(b, a, mask, profile) == 0
    assert background_psnr(b, a, mask, profile) == np.inf
    assert background_ssim(b, a, mask, profile) == pytest.approx(1, abs=1e-12)


@BOTH
def test_a_mask_without_background_leaves_nothing_to_measure(profile: str) -> None:
    a, b, mask = pixel_arrays()
    for metric in (background_mse, background_psnr, background_ssim):
        assert np.isnan(metric(b, a, np.ones_like(mask), profile))


def test_clean_ignores_the_size_of_the_mask() -> None:
    a, b, mask = pixel_arrays()
    official, clean = (background_mse(b, a, mask, profile) for profile in PROFILES)
    assert official * mask.size / (~mask).sum() == pytest.approx(clean)


def test_images_and_mask_have_one_size() -> None:
    with pytest.raises(UserError, match="the edit has 40 x 32, its source has 32 x 32, its mask has 32 x 32: the published code"):
        Mse()([sample(0, result=noise_image(0, 40, 32))], Encoders(), "official")
