"""Steered layers compute what explicit attention matrices give; nothing else changes, nothing stays, nothing is missed."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from einops import einsum, rearrange
from torch import Tensor

from sdist.errors import UserError
from sdist.hooks.attach import record, steer
from sdist.hooks.injection import Injection, TokenMap, inject, inject_tokens
from sdist.hooks.layers import Layer
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.models.unet_layout import UNetLayout
from sdist.prediction import NULL, SOURCE_SOURCE, TARGET, predict

from ..conftest import make_draw, progress, tiny_edit
from .test_hooks import hooks_on

SOURCE, TARGET_ROWS, B = slice(2, 4), slice(4, 6), 2
BRANCHES = (NULL, SOURCE_SOURCE, TARGET)  # rows 0-1, 2-3, 4-5 of two images


def softmax_map(q: Tensor, k: Tensor) -> Tensor:
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def token_map(keep: bool, b: int = B, length: int = 24) -> TokenMap:
    """Each image with its own map: some tokens from the source, two of them split, some kept or weighted."""
    generator = torch.Generator().manual_seed(2)
    carry = torch.rand(b, length, length, generator=generator, dtype=torch.float64)
    own = torch.rand(b, length, generator=generator, dtype=torch.float64) if keep else torch.zeros(b, length, dtype=torch.float64)
    return TokenMap(carry, own)


def explicit_tokens(p: Tensor, tokens: TokenMap) -> Tensor:
    """The target's map by its definition: p (n, heads, queries, tokens) -> (b, heads, queries, tokens)."""
    carried = einsum(p[SOURCE], tokens.carry.to(p), "b h n i, b i j -> b h n j")
    return carried + p[TARGET_ROWS] * tokens.keep.to(p)[:, None, None]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-14)])
@pytest.mark.parametrize("keep", [True, False])
def test_injection_equals_explicit_matrices(dtype: torch.dtype, tolerance: float, keep: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(6, 3, n, 8, generator=generator, dtype=dtype) for n in (30, 24, 24))
    p, tokens = softmax_map(q, k), token_map(keep)
    for out, wanted in (
        (inject(SOURCE, TARGET_ROWS, q, k, v, attend), p[SOURCE] @ v[TARGET_ROWS]),
        (inject_tokens(SOURCE, TARGET_ROWS, tokens, q, k, v, attend), explicit_tokens(p, tokens) @ v[TARGET_ROWS]),
    ):
        torch.testing.assert_close(out[TARGET_ROWS], wanted, rtol=0, atol=tolerance)
        assert torch.equal(out[:4], attend(q, k, v)[:4])


class Explicit:
    """An attention processor that writes every matrix out, and changes the target's by its definition."""

    def __init__(self, tokens: TokenMap | None) -> None:
        self.tokens = tokens

    def __call__(self, attn: Any, x: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        context = x if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            rearrange(project(y), "n t (h d) -> n h t d", h=attn.heads)
            for project, y in ((attn.to_q, x), (attn.to_k, context), (attn.to_v, context))
        )
        p = softmax_map(q, k)
        p[TARGET_ROWS] = p[SOURCE] if self.tokens is None else explicit_tokens(p, self.tokens)
        return attn.to_out[0](rearrange(p @ v, "n h t d -> n t (h d)"))


def run(network: Backbone, hooks: tuple, h: int = 8, w: int = 12) -> dict:
    edit = tiny_edit(network, B, h, w)
    draw = make_draw(network, B, 500, shape=(4, h, w), dtype=torch.float32)
    with torch.no_grad():
        return predict(network, edit.source + 0.5, edit, draw, BRANCHES, hooks, progress(B)).eps


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("self_level", [None, 1])
@pytest.mark.parametrize("cross", [True, False])
def test_injection_in_the_network_equals_explicit_matrices(
    tiny: Backbone, keep: bool, self_level: int | None, cross: bool
) -> None:
    tokens = token_map(keep) if cross else None
    ours = run(tiny, (Injection(SOURCE_SOURCE, TARGET, tokens, self_level),))
    chosen = {layer.name: tokens for layer in tiny.layout.layers("cross") if cross}
    chosen |= {a.name: None for a in tiny.layout.layers("self") if self_level is not None and a.level >= self_level}
    before, plain = dict(tiny.denoiser.attn_processors), run(tiny, ())
    try:
        for name, own in chosen.items():
            tiny.denoiser.get_submodule(name).set_processor(Explicit(own))
        wanted = run(tiny, ())
    finally:
        tiny.denoiser.set_attn_processor(before)
    for branch in BRANCHES:
        torch.testing.assert_close(ours[branch], wanted[branch], rtol=0, atol=1e-5)
        assert torch.equal(ours[branch], plain[branch]) == (branch != TARGET or not chosen)


def test_the_network_is_as_before_also_after_an_exception(tiny: Backbone) -> None:
    plain, layer = run(tiny, ()), tiny.layout.layers("self")[0].name

    def failing(*_: Any) -> Tensor:
        raise RuntimeError("inside")

    for error, steering in ((RuntimeError, failing), (KeyboardInterrupt, interrupted)):
        with pytest.raises(error), steer(tiny, {layer: steering}):
            run(tiny, ())
    with pytest.raises(KeyError, match="no module 'nowhere'"), steer(tiny, {layer: failing, "nowhere": failing}):
        pass
    assert torch.overrides._len_torch_function_stack() == 0
    assert hooks_on(tiny.denoiser) == 0
    assert not any("forward" in vars(module) for module in tiny.denoiser.modules())
    assert torch.equal(run(tiny, ())[TARGET], plain[TARGET])


def interrupted(*_: Any) -> Tensor:
    raise KeyboardInterrupt


def scaled(factor: float) -> Callable[..., Tensor]:
    return lambda q, k, v, attend: factor * attend(q, k, v)


def test_blocks_nest(tiny: Backbone) -> None:
    """The one opened last is asked, and its attention is that of the other; attention itself goes past both."""
    layer = tiny.layout.layers("cross")[-1].name
    with steer(tiny, {layer: lambda q, k, v, _: 8 * attend(q, k, v) + 3 * attend(2 * q, k, v)}):
        wanted = run(tiny, ())
    first, last = scaled(4), lambda q, k, v, other: 2 * other(q, k, v) + 3 * attend(2 * q, k, v)
    with steer(tiny, {layer: first}), steer(tiny, {layer: last}), record(tiny, [f"{layer}.to_q"], TARGET_ROWS) as tape:
        torch.testing.assert_close(run(tiny, ())[TARGET], wanted[TARGET], rtol=0, atol=1e-6)
    assert len(tape[f"{layer}.to_q"]) == B
    assert "forward" not in vars(tiny.denoiser.get_submodule(layer))


# --- nothing is missed silently ----------------------------------------------------------------------------------------


def test_a_compiled_network_runs_as_it_is(tiny: Backbone, tiny_folder) -> None:
    network, hooks = load_backbone(str(tiny_folder), "cpu"), (Injection(SOURCE_SOURCE, TARGET, None, 1),)
    network.compile()
    assert torch.equal(run(network, hooks)[TARGET], run(tiny, hooks)[TARGET])
    assert network.engine == "torch"


def test_a_network_that_goes_past_its_modules_is_noticed(tiny: Backbone) -> None:
    """As one does whose forward was compiled before the block."""
    layer = tiny.layout.layers("self")[0].name
    with pytest.raises(UserError, match=f"{layer} was not called"), steer(tiny, {layer: scaled(2)}):
        pass
    with pytest.raises(UserError, match="to_q was not called"), record(tiny, [f"{layer}.to_q"], SOURCE) as tape:
        tape[f"{layer}.to_q"]


def test_attention_by_other_means_is_refused(tiny: Backbone) -> None:
    layer = tiny.layout.layers("self")[0].name
    module = tiny.denoiser.get_submodule(layer)
    try:
        module.set_processor(AttnProcessor())  # which multiplies matrices
        with pytest.raises(UserError, match="does not call scaled_dot_product_attention"), steer(tiny, {layer: scaled(2)}):
            run(tiny, ())
    finally:
        module.set_processor(AttnProcessor2_0())


def test_attention_under_a_mask_is_refused(tiny: Backbone) -> None:
    layer = tiny.layout.layers("cross")[0].name
    inputs = torch.randn(1, 6, 8), torch.randn(1, 24, 16), torch.zeros(1, 24, dtype=torch.float32)
    with pytest.raises(UserError, match="attends under a mask"), steer(tiny, {layer: scaled(2)}):
        tiny.denoiser.get_submodule(layer)(*inputs)


class OneLayer(UNetLayout):
    """A layout of one layer, of some kinds."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self.kinds = kinds

    def layers(self, kind: str) -> list[Layer]:
        return [Layer("transformer_blocks.0.attn", 1, "mid", heads=2, scale=1.0)] if kind in self.kinds else []


@pytest.mark.parametrize(
    ("kinds", "message"), [(("cross", "self"), "looks at both in one layer"), (("self",), "has no layers that")]
)
def test_text_and_image_need_layers_of_their_own(kinds: tuple[str, ...], message: str) -> None:
    """In joint attention a map reaches over both, and one branch's would be put in the place of another's unnoticed."""
    network, injection = SimpleNamespace(layout=OneLayer(kinds)), Injection(SOURCE_SOURCE, TARGET, None, 0)
    with pytest.raises(UserError, match=message), injection.open(network, {SOURCE_SOURCE: SOURCE, TARGET: TARGET_ROWS}):
        pass


def test_fused_projections_are_refused(tiny: Backbone) -> None:
    attention = tiny.denoiser.get_submodule(tiny.layout.layers("cross")[0].name)
    attention.fused_projections = True
    try:
        with pytest.raises(UserError, match="unfuse_qkv_projections"):
            run(tiny, (Injection(SOURCE_SOURCE, TARGET, token_map(True), None),))
    finally:
        attention.fused_projections = False


def test_checkpointing_with_a_gradient_is_refused(tiny: Backbone) -> None:
    tiny.denoiser.enable_gradient_checkpointing()
    try:
        with pytest.raises(UserError, match="set checkpoint to false"), steer(tiny, {}):
            pass
        with torch.no_grad(), steer(tiny, {}):
            pass
    finally:
        tiny.denoiser.disable_gradient_checkpointing()


def test_an_offloaded_module_stays_offloaded_and_is_steered(tiny: Backbone) -> None:
    """accelerate puts its own forward on a module, which moves weights and inputs before it calls the module's."""
    layer = tiny.layout.layers("cross")[-1].name
    with steer(tiny, {layer: scaled(2)}):
        wanted = run(tiny, ())
    module, moved = tiny.denoiser.get_submodule(layer), []
    own = module.forward

    def offloaded(*inputs: Any, **options: Any) -> Tensor:
        moved.append(1)
        return own(*inputs, **options)

    module._hf_hook, module.forward = object(), offloaded
    try:
        with steer(tiny, {layer: scaled(2)}):
            assert torch.equal(run(tiny, ())[TARGET], wanted[TARGET])
        assert vars(module)["forward"] is offloaded
        assert moved == [1]
    finally:
        del module._hf_hook, module.forward
