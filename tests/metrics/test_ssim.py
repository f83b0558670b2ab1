import numpy as np
import pytest
import torch

from sdist.errors import UserError
from sdist.metrics.base import Encoders
from sdist.metrics.ssim import Ssim, background_ssim, ssim_map

from .samples import BOTH, pixel_arrays, sample


def test_ssim_is_torchmetrics_map_without_its_border() -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    a, b = (torch.from_numpy(x).permute(2, 0, 1) for x in pixel_arrays()[:2])
    _, whole = structural_similarity_index_measure(a[None], b[None], data_range=1.0, return_full_image=True)
    torch.testing.assert_close(ssim_map(a, b), whole[0, :, 5:-5, 5:-5], rtol=0, atol=1e-9)


def test_clean_ssim_needs_a_window_of_background() -> None:
    a, b, mask = pixel_arrays()
    mask[:] = True
    mask[:5] = False
    assert np.isnan(background_ssim(b, a, mask, "clean"))
    with pytest.raises(UserError, match="at least 11 x 11 pixels, got 8 x 9"):
        background_ssim(b[:9, :8], a[:9, :8], np.zeros((9, 8), bool), "clean")


def test_ssim_of_the_published_code() -> None:
    a, b, mask = pixel_arrays()
    assert background_ssim(b, a, np.zeros_like(mask), "official") == pytest.approx(0.946305, abs=2e-6)
    assert background_ssim(b, a, mask, "official") == pytest.approx(0.960242, abs=2e-6)


def test_clean_ignores_the_size_of_the_mask() -> None:
    a, b, mask = pixel_arrays()
    assert background_ssim(b, a, mask, "clean") == pytest.approx(background_ssim(b, a, np.zeros_like(mask), "clean"), abs=2e-3)


@BOTH
def test_doing_nothing_is_perfect(profile: str) -> None:
    assert Ssim()([sample(0, result=sample(0).source)], Encoders(), profile) == pytest.approx(1)
