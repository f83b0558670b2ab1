"""A network with low-rank hooks equals one whose weights hold the change; afterwards it is as it was."""

from copy import copy, deepcopy

import pytest
import torch
from torch import Tensor, nn

from sdist.errors import UserError
from sdist.hooks.low_rank import LowRank, projections
from sdist.models.base import Backbone
from sdist.prediction import NULL, TARGET, Branch, Hook, predict

from ..conftest import make_draw, progress, tiny_edit

B, RANK = 2, 3
BRANCHES = (TARGET, NULL)


def values_of(network: Backbone, scale: float = 0.3) -> Tensor:
    return scale * torch.randn(B, LowRank.count(projections(network), RANK), generator=torch.Generator().manual_seed(2))


def run(network: Backbone, *hooks: Hook, row: int | None = None) -> dict[Branch, Tensor]:
    rows = torch.arange(B) if row is None else torch.tensor([row])
    draw = make_draw(network, B, 500, dtype=torch.float32).narrow(rows)
    edit = tiny_edit(network, B).narrow(rows)
    eps = predict(network, edit.source + 0.5, edit, draw, BRANCHES, hooks, progress(len(rows))).eps
    return {branch: eps[branch] for branch in BRANCHES}


def changed(network: Backbone, lora: LowRank, row: int) -> Backbone:
    """A copy whose weights are W + up down of one image."""
    other = copy(network)
    other.denoiser = deepcopy(network.denoiser)
    for name, (down, up) in lora.factors().items():
        other.denoiser.get_submodule(name).weight.data += up[row] @ down[row]
    return other


def test_each_image_sees_the_network_with_its_own_change(tiny: Backbone) -> None:
    lora = LowRank(projections(tiny), RANK, values_of(tiny))
    with torch.no_grad():
        found, plain = run(tiny, lora), run(tiny)
        for row in range(B):
            expected = run(changed(tiny, lora, row), row=row)
            for branch in BRANCHES:
                torch.testing.assert_close(found[branch][row : row + 1], expected[branch], rtol=1e-4, atol=1e-5)
    assert (found[TARGET] - plain[TARGET]).abs().max() > 0.01


def test_what_it_starts_with_has_no_effect_but_a_slope(tiny: Backbone) -> None:
    layers = projections(tiny)
    assert len(layers) == 4 * len(tiny.layout.layers("self") + tiny.layout.layers("cross"))
    start = LowRank.start(layers, RANK, torch.Generator().manual_seed(0)).repeat(B, 1).requires_grad_()
    found = run(tiny, LowRank(layers, RANK, start))[TARGET]
    assert torch.equal(found, run(tiny)[TARGET])
    (slope,) = torch.autograd.grad(found.square().sum(), start)
    for down, up in LowRank(layers, RANK, slope).factors().values():
        assert not down.any()
        assert up.flatten(1).any(1).all()


def test_the_network_is_as_before_also_after_an_exception(tiny: Backbone) -> None:
    before = {name: value.clone() for name, value in tiny.denoiser.state_dict().items()}
    layers = projections(tiny)

    def failing() -> None:
        with LowRank(layers, RANK, values_of(tiny)).open(tiny, {}):
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"):
        failing()
    run(tiny, LowRank(layers, RANK, values_of(tiny)))
    assert not any(module._forward_hooks for module in tiny.denoiser.modules())
    assert all(torch.equal(value, before[name]) for name, value in tiny.denoiser.state_dict().items())


def test_a_network_without_such_layers_is_one_line(tiny: Backbone) -> None:
    other = copy(tiny)
    other.denoiser = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(UserError, match="Sequential has no linear layers named to_q, to_k, to_v"):
        projections(other)


def test_a_layer_that_is_not_called_is_one_line(tiny: Backbone) -> None:
    with (
        pytest.raises(UserError, match="mid_block was not called"),
        LowRank({"mid_block": nn.Linear(1, 1)}, 1, torch.zeros(B, 2)).open(tiny, {}),
    ):
        pass
