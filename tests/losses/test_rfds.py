"""RFDS: SDS in terms of velocity; with the noise that the network sees, RFDS-Rev."""

from dataclasses import replace

import pytest
import torch

from sdist.distillation.method import Method
from sdist.draws import DrawKey
from sdist.losses.rfds import RFDS
from sdist.losses.sds import SDS
from sdist.prediction import TARGET, predict

from ..conftest import Gaussian, gaussian_edit, make_draw
from .test_velocity_delta import GaussianFlow


@pytest.mark.parametrize("t", [100, 600, 990])
def test_on_a_flow_sds_is_rfds_times_alpha(t: int) -> None:
    """eps - noise = (1 - s) (V - (noise - z))."""
    network, edit = GaussianFlow(), gaussian_edit(2)
    draw, z = make_draw(network, 2, t), gaussian_edit(2).source + 0.3
    sds, rfds = (loss.gradient(predict(network, z, edit, draw, loss.branches)) for loss in (SDS(3.0), RFDS(3.0)))
    torch.testing.assert_close(draw.alpha[:, None, None, None] * rfds, sds, rtol=0, atol=1e-12)


@pytest.mark.parametrize("network", [Gaussian(), GaussianFlow()], ids=["epsilon", "flow"])
def test_reversal_replaces_the_noise_by_the_predicted_one(network: Gaussian | GaussianFlow) -> None:
    edit, images = gaussian_edit(1), torch.zeros(1, dtype=torch.long)
    method = Method(RFDS(3.0, reverse=True), steps=4)
    draw = make_draw(network, 1, 500)
    seen = predict(network, edit.source, edit, draw, [TARGET])
    expected = predict(network, edit.source, edit, replace(draw, noise=seen.eps[TARGET]), method.loss.branches)
    step = method.direction(network, edit.source, edit, draw, images, method.states(1))
    torch.testing.assert_close(step.direction, RFDS(3.0).gradient(expected), rtol=0, atol=1e-12)


def test_random_weights_belong_to_the_draw() -> None:
    network, edit, loss = GaussianFlow(), gaussian_edit(2), RFDS(3.0, random_weight=True)
    draw = make_draw(network, 2, 500)
    p = predict(network, edit.source, edit, draw, loss.branches)
    weights = loss.gradient(p) / RFDS(3.0).gradient(p)
    u = torch.cat([torch.randn(1, generator=DrawKey(0, str(i), 0, 0).generator("weight")) for i in range(2)])
    torch.testing.assert_close(weights[:, 0, 0, 0], torch.sigmoid(u).double())
    assert (weights.flatten(1).std(1) < 1e-9).all()
