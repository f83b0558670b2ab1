"""Stable Score Distillation against rows of coefficients."""

from math import exp

import torch

from sdist.losses.combination import Combination
from sdist.losses.ssd import SSD

from .test_losses import prediction


def test_it_is_a_row_of_coefficients_with_a_pull_on_noisy_latents() -> None:
    p = prediction(t=600)
    pull = 0.075 * exp(0.6) * p.draw.alpha.item()
    row = Combination(edit_source=1 - 3.75, source_null=-1, edit_target=3.75 + 5.5, edit_null=-5.5, displacement=pull)
    torch.testing.assert_close(SSD().gradient(p), row.gradient(p), rtol=0, atol=1e-9)
