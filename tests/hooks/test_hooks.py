"""Recording leaves no trace, and refined maps equal the dense product that they avoid."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sdist.errors import UserError
from sdist.hooks.attach import record
from sdist.hooks.attention import Attention, AttentionRecorder
from sdist.hooks.features import FeatureRecorder
from sdist.hooks.layers import Layer
from sdist.hooks.localization import LocalizationRecorder
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.prediction import SOURCE, SOURCE_SOURCE, TARGET, Hook, predict
from sdist.regularizers.mask import unit_range

from ..conftest import make_draw, progress, tiny_edit


def hooks_on(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def run(tiny: Backbone, hooks: tuple, h: int = 8, w: int = 8, b: int = 2):
    edit = tiny_edit(tiny, b, h, w)
    draw = make_draw(tiny, b, 500, shape=(4, h, w), dtype=torch.float32)
    with torch.no_grad():
        return predict(tiny, edit.source, edit, draw, (SOURCE, TARGET, SOURCE_SOURCE), hooks, progress(b))


def test_recording_changes_no_bit_of_the_prediction_and_leaves_no_hook(tiny: Backbone) -> None:
    plain = run(tiny, ())
    recorded = run(tiny, (AttentionRecorder(TARGET, 1, 0), FeatureRecorder((TARGET, SOURCE_SOURCE))))
    assert all(torch.equal(plain.eps[b], recorded.eps[b]) for b in plain.eps)
    assert hooks_on(tiny.denoiser) == 0


@pytest.mark.parametrize(
    "recorder", [AttentionRecorder(TARGET, 1, 0), FeatureRecorder((TARGET,)), LocalizationRecorder(TARGET, TARGET, (0,))]
)
def test_what_a_coarse_network_does_is_read_in_float32(tiny_folder: Path, recorder: Hook) -> None:
    network = load_backbone(str(tiny_folder), "cpu", dtype=torch.bfloat16)
    assert network.dtype == torch.bfloat16
    seen = run(network, (recorder,)).recorded[recorder]
    assert {x.dtype for x in tree_leaves(vars(seen)) if isinstance(x, torch.Tensor)} == {torch.float32}


def test_no_hook_remains_after_an_exception(tiny: Backbone) -> None:
    with pytest.raises(RuntimeError, match="inside"), record(tiny, ["mid_block"], slice(None)):
        raise RuntimeError("inside")
    with pytest.raises(KeyError, match="no module 'nowhere'"), record(tiny, ["mid_block", "nowhere"], slice(None)):
        pass
    assert hooks_on(tiny.denoiser) == 0


def test_further_refinements_keep_a_part_of_the_map(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """keep s + (1 - keep) A s, whether the matrix A is made or not."""
    recorder = AttentionRecorder(TARGET, cross_level=1, self_level=0)
    attention: Attention = run(tiny, (recorder,)).recorded[recorder]
    focus = torch.zeros(2, 24)
    focus[:, 4] = 1
    spread, first = attention.spread(), attention.refined(focus, 0).flatten(1)[..., None]
    second = 0.25 * first + 0.75 * spread(first)
    third = 0.25 * second + 0.75 * spread(second)
    torch.testing.assert_close(attention.refined(focus, 2, 0.25).flatten(1)[..., None], third)
    monkeypatch.setattr("sdist.hooks.attention.DENSE", 0)
    torch.testing.assert_close(attention.spread()(first), spread(first), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("h", "w"), [(8, 8), (8, 12), (6, 10), (9, 7)])
def test_refined_maps_equal_the_dense_product_at_any_aspect_ratio(tiny: Backbone, h: int, w: int) -> None:
    recorder = AttentionRecorder(TARGET, cross_level=1, self_level=0)
    p = run(tiny, (recorder,), h, w)
    attention: Attention = p.recorded[recorder]
    focus = torch.zeros(2, 24)
    focus[0, 3], focus[1, [4, 5]] = 1, 1
    expected = dense(attention, focus, h, w)
    torch.testing.assert_close(attention.refined(focus), expected, rtol=1e-5, atol=1e-7)
    assert attention.refined(focus).shape == (2, 1, h, w)


def test_a_word_that_takes_nearly_all_attention_keeps_its_digits(tiny: Backbone) -> None:
    """Where its share is 1 - 1e-6 the shape of the map is in what is left, far below the rounding of numbers near 1."""
    recorder = AttentionRecorder(TARGET, cross_level=1, self_level=0)
    attention: Attention = run(tiny, (recorder,)).recorded[recorder]
    focus = torch.zeros(2, 24)
    focus[:, 3] = 1
    cross = {}
    for layer, (q, k) in attention.cross.items():
        pull = 8 * layer.heads / (q.shape[2] * layer.scale)  # times a query of ones: a logit of 8
        cross[layer] = 1 + 0.1 * q, pull * (2 * focus[..., None] - 1).expand_as(k)
    attention = replace(attention, cross=cross)
    exact = replace(attention, cross=doubled(cross), self=doubled(attention.self))
    share = dense(exact, focus.double(), 8, 8)
    assert 0.999 < share.min() < share.max() < 1 - 1e-8
    torch.testing.assert_close(unit_range(attention.refined(focus)).double(), unit_range(share), rtol=0, atol=1e-4)


def doubled(group: dict) -> dict:
    return {layer: (q.double(), k.double()) for layer, (q, k) in group.items()}


def dense(attention: Attention, focus: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """Every matrix written out, one image, layer and head after the other."""
    maps = []
    for row in range(len(focus)):
        tokens = focus[row].nonzero()[:, 0]
        cross = torch.stack([m[:, tokens].mean(1) for m in matrices(attention.cross, row)]).mean(0)
        small = cross.reshape(1, 1, -(-h // 2), -(-w // 2))
        column = F.interpolate(small, (h, w), mode="bicubic").flatten()
        maps.append(torch.stack([m @ column for m in matrices(attention.self, row)]).mean(0).reshape(1, h, w))
    return torch.stack(maps)


def matrices(queries: dict[Layer, tuple[torch.Tensor, torch.Tensor]], row: int) -> list[torch.Tensor]:
    found = []
    for layer, (q, k) in queries.items():
        width = q.shape[-1] // layer.heads
        for head in range(layer.heads):
            part = slice(head * width, (head + 1) * width)
            found.append((q[row, :, part] @ k[row, :, part].T * layer.scale).softmax(-1))
    return found


class Shapes(TorchDispatchMode):
    """Remembers the size of every tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.sizes += [x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        return out


def test_no_matrix_of_all_pairs_of_places_is_ever_made() -> None:
    side, width = 48, 16
    layer = Layer("self", 0, "up", heads=2, scale=0.25)
    own = torch.randn(1, side * side, 2 * width), torch.randn(1, side * side, 2 * width)
    cross = torch.randn(1, side * side // 4, 2 * width), torch.randn(1, 24, 2 * width)
    attention = Attention({Layer("cross", 1, "up", 2, 0.25): cross}, {layer: own}, (side, side))
    with Shapes() as shapes:
        attention.refined(torch.ones(1, 24))
    assert 0 < max(shapes.sizes) < (side * side) ** 2 / 8


def test_joint_attention_has_the_map_of_its_text_keys(tiny: Backbone) -> None:
    """Keys of the image after those of the text: a softmax over all, of which the focus tokens' columns are wanted."""
    recorder = AttentionRecorder(TARGET, cross_level=1, self_level=1)
    attention: Attention = run(tiny, (recorder,)).recorded[recorder]
    focus = torch.zeros(2, 24)
    focus[0, 3], focus[1, [4, 5]] = 1, 1
    text_alone = list(attention.cross.items())
    joint = replace(attention, cross={layer: (q, torch.cat([k, 0.1 * q], 1)) for layer, (q, k) in text_alone})
    expected = []
    for row in range(2):
        tokens = focus[row].nonzero()[:, 0]
        expected.append(torch.stack([m[:, tokens].mean(1) for m in matrices(joint.cross, row)]).mean(0).reshape(1, 4, 4))
    torch.testing.assert_close(joint.cross_map(focus), torch.stack(expected), rtol=1e-5, atol=1e-7)
    assert (joint.cross_map(focus) < attention.cross_map(focus)).all()


def test_recorded_attention_is_that_of_the_asked_branch(tiny: Backbone) -> None:
    recorder = AttentionRecorder(TARGET, 1, 0)
    p = run(tiny, (recorder,))
    edit = tiny_edit(tiny, 2)
    draw = make_draw(tiny, 2, 500, dtype=torch.float32)
    with torch.no_grad():
        alone = predict(tiny, edit.source, edit, draw, (TARGET,), (recorder,), progress(2))
    focus = tiny_edit(tiny, 2).focus
    torch.testing.assert_close(p.recorded[recorder].refined(focus), alone.recorded[recorder].refined(focus))


def test_narrowing_keeps_the_right_rows(tiny: Backbone) -> None:
    recorder = AttentionRecorder(TARGET, 1, 0)
    p = run(tiny, (recorder,), b=3)
    rows = torch.tensor([2, 0])
    focus = tiny_edit(tiny, 3).focus
    whole, narrow = p.recorded[recorder].refined(focus), p.narrow(rows).recorded[recorder].refined(focus[rows])
    torch.testing.assert_close(narrow, whole[rows])


def test_features_have_their_grid(tiny: Backbone) -> None:
    recorder = FeatureRecorder((TARGET, SOURCE_SOURCE))
    features = run(tiny, (recorder,), 8, 12).recorded[recorder]
    assert [tuple(x.shape) for x in features.by_branch[TARGET]] == [(2, 8, 4, 6)] * 2 + [(2, 8, 8, 12)] * 2


def test_the_nearest_level_is_found(tiny: Backbone) -> None:
    assert [tiny.layout.nearest("cross", level) for level in (0, 2, 5)] == [0, 2, 2]


def test_layers_are_found_by_level(tiny: Backbone) -> None:
    assert {layer.level for layer in tiny.layout.layers("cross")} == {0, 1, 2}
    assert [layer.part for layer in tiny.layout.at("self", 1)] == ["down", "up", "up"]
    with pytest.raises(UserError, match=r"no self-attention at level 5 .* have levels \[0, 1, 2\]"):
        tiny.layout.at("self", 5)


def test_fused_projections_are_noticed(tiny: Backbone) -> None:
    attention = next(m for n, m in tiny.denoiser.named_modules() if n.endswith("attn1"))
    attention.fused_projections = True
    try:
        with pytest.raises(UserError, match="unfuse_qkv_projections"):
            tiny.layout.layers("self")
    finally:
        attention.fused_projections = False
