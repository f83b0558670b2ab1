"""The penalty in a network equals explicit attention matrices; rows and images that it does not concern stay as they are."""

from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

from sdist.errors import UserError
from sdist.hooks.attach import steer
from sdist.hooks.penalty import Penalty
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.prediction import NULL, SOURCE_SOURCE, TARGET, Branch, predict

from ..conftest import make_draw, progress, tiny_edit

B, H, W = 2, 8, 12
BRANCHES = (NULL, SOURCE_SOURCE, TARGET)  # rows 0-1, 2-3, 4-5 of two images


def region() -> Tensor:
    """Half of the first image, a corner of the second, at twice the latents' side."""
    inside = torch.zeros(B, 2 * H, 2 * W, dtype=torch.bool)
    inside[0, :, :W] = inside[1, :6, -6:] = True
    return inside


def allowed() -> Tensor:
    tokens = torch.zeros(B, 24, dtype=torch.bool)
    tokens[0, [2, 5]] = tokens[1, [3]] = True
    return tokens


def penalty(branches: tuple[Branch, ...] = (TARGET,), levels: tuple[int, ...] = (0, 1), **changes: Any) -> Penalty:
    return Penalty(
        **{"branches": branches, "levels": levels, "region": region(), "allowed": allowed(), "size": (H, W), **changes}
    )


def run(network: Backbone, *hooks: Any, b: int = B, rows: slice = slice(None)) -> dict[Branch, Tensor]:
    edit = tiny_edit(network, B, H, W).narrow(torch.arange(B)[rows])
    draw = make_draw(network, B, 500, shape=(4, H, W), dtype=torch.float32).narrow(torch.arange(B)[rows])
    with torch.no_grad():
        eps = predict(network, edit.source + 0.5, edit, draw, BRANCHES, hooks, progress(b)).eps
        return {branch: eps[branch] for branch in BRANCHES}


class Explicit:
    """An attention processor that writes the matrix out, with minus infinity where the penalty is."""

    def __init__(self, rows: slice, forbidden: Tensor) -> None:
        self.rows, self.forbidden = rows, forbidden

    def __call__(self, attn: Any, x: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        q, k, v = (
            rearrange(project(y), "n t (h d) -> n h t d", h=attn.heads)
            for project, y in ((attn.to_q, x), (attn.to_k, encoder_hidden_states), (attn.to_v, encoder_hidden_states))
        )
        logits = q @ k.mT * attn.scale
        logits[self.rows] = logits[self.rows].masked_fill(self.forbidden[:, None], -torch.inf)
        return attn.to_out[0](rearrange(logits.softmax(-1) @ v, "n h t d -> n t (h d)"))


@pytest.mark.parametrize(("branches", "rows"), [((TARGET,), slice(4, 6)), (BRANCHES, slice(0, 6))])
def test_it_equals_explicit_matrices(tiny: Backbone, branches: tuple[Branch, ...], rows: slice) -> None:
    hook = penalty(branches)
    before, plain, ours = dict(tiny.denoiser.attn_processors), run(tiny), run(tiny, hook)
    try:
        for layer in (layer for layer in tiny.layout.layers("cross") if layer.level in hook.levels):
            forbidden = hook.inside(layer)[:, :, None] & ~allowed()[:, None]
            explicit = Explicit(rows, forbidden.repeat((rows.stop - rows.start) // B, 1, 1))
            tiny.denoiser.get_submodule(layer.name).set_processor(explicit)
        wanted = run(tiny)
    finally:
        tiny.denoiser.set_attn_processor(before)
    for branch in BRANCHES:
        torch.testing.assert_close(ours[branch], wanted[branch], rtol=0, atol=1e-5)
        assert torch.equal(ours[branch], plain[branch]) == (branch not in branches)
    assert torch.equal(run(tiny)[TARGET], plain[TARGET])


def test_each_image_has_its_own_region_and_tokens(tiny: Backbone) -> None:
    together = run(tiny, penalty())
    for row in range(B):
        one = slice(row, row + 1)
        alone = run(tiny, penalty(region=region()[one], allowed=allowed()[one]), b=1, rows=one)
        torch.testing.assert_close(together[TARGET][one], alone[TARGET], rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", ["region", "allowed"])
def test_an_image_without_a_region_or_without_a_token_is_left_alone(tiny: Backbone, part: str) -> None:
    values = {"region": region(), "allowed": allowed()}[part]
    values[1] = False
    out, plain = run(tiny, penalty(**{part: values})), run(tiny)
    torch.testing.assert_close(out[TARGET][1], plain[TARGET][1], rtol=0, atol=1e-6)
    assert not torch.allclose(out[TARGET][0], plain[TARGET][0], atol=1e-4)


def test_levels_count_and_inside_all_looks_go_to_allowed_tokens(tiny: Backbone) -> None:
    assert not torch.equal(run(tiny, penalty(levels=(0,)))[TARGET], run(tiny, penalty(levels=(1,)))[TARGET])
    hook, layer = penalty(), tiny.layout.layers("cross")[0]
    q, k = (torch.randn(B, 2, n, 4, generator=torch.Generator().manual_seed(3)) for n in (H * W, 24))
    seen = hook.steering(layer, [slice(0, B)])(
        q, k, torch.eye(24).expand(B, 2, 24, 24), torch.nn.functional.scaled_dot_product_attention
    )
    forbidden = (hook.inside(layer)[:, None, :, None] & ~allowed()[:, None, None]).expand_as(seen)
    assert seen[forbidden].max() == 0
    torch.testing.assert_close(seen.sum(-1), torch.ones(B, 2, H * W))


def test_it_goes_before_what_replaces_attention(tiny: Backbone) -> None:
    layer = tiny.layout.layers("cross")[0].name
    with (
        pytest.raises(UserError, match="a bias to attention has to be opened before"),
        steer(tiny, {layer: lambda q, k, v, a: a(q, k, v)}),
    ):
        run(tiny, penalty(levels=(0, 1)))


def test_a_level_without_attention_and_fused_projections_are_refused(tiny_folder) -> None:
    network = load_backbone(str(tiny_folder), "cpu")
    with pytest.raises(UserError, match=r"no cross-attention at level 7 .*; have levels \[0, 1"):
        run(network, penalty(levels=(7,)))
    network.denoiser.fuse_qkv_projections()
    with pytest.raises(UserError, match="fused projections"):
        run(network, penalty())
