import numpy as np
import pytest
import torch

from sdist.metrics.encoders.lpips import Lpips
from sdist.metrics.lpips import background_lpips

from .samples import BOTH, pixel_arrays


def test_lpips_is_that_of_torchmetrics(lpips: Lpips, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only torchvision's SqueezeNet, which is not installed, is ours in both."""
    from torchmetrics.functional.image import lpips as theirs

    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda net, pretrained: lpips.features)
    model = theirs._LPIPS(pretrained=False, net="squeeze")
    for linear, weight in zip(model.lins, lpips.weights, strict=True):
        linear.model[1].load_state_dict(weight.state_dict())
    a, b, mask = pixel_arrays()
    black = [torch.from_numpy(np.where(mask[:, :, None], 0, x)).permute(2, 0, 1)[None].float() for x in (b, a)]
    expected = model(*black, normalize=True).item()
    assert expected > 1e-3
    assert background_lpips(b, a, mask, lpips, "official") == pytest.approx(expected, rel=1e-4)
    assert sum(p.numel() for p in lpips.features.parameters()) == 722_496  # of squeezenet1_1 without its classifier


@BOTH
def test_lpips_of_the_background(lpips: Lpips, profile: str) -> None:
    a, b, mask = pixel_arrays()
    inside_only = np.where(mask[:, :, None], b, a)
    assert background_lpips(inside_only, a, mask, lpips, profile) == 0
    assert background_lpips(b, a, mask, lpips, profile) > 0
    assert np.isnan(background_lpips(b, a, np.ones_like(mask), lpips, profile))


def test_clean_lpips_ignores_the_size_of_the_mask(lpips: Lpips) -> None:
    a, b, mask = pixel_arrays()
    half = np.zeros_like(mask)
    half[:48] = True
    whole = background_lpips(b, a, np.zeros_like(mask), lpips, "official")
    assert background_lpips(b, a, half, lpips, "clean") == pytest.approx(whole, rel=0.2)
    assert background_lpips(b, a, half, lpips, "official") < 0.7 * whole
