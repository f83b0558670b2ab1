"""Mutual self-attention is what explicit attention matrices give, and leaves other rows and layers alone."""

import math
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from einops import rearrange
from torch import Tensor

from sdist.config.build import load_settings
from sdist.editors.loading import load_method
from sdist.errors import UserError
from sdist.hooks.mutual import MutualSelfAttention, decoder_layers
from sdist.models.base import Backbone
from sdist.prediction import NULL, SOURCE_SOURCE, TARGET, Branch, call

ROWS = {branch: slice(2 * i, 2 * i + 2) for i, branch in enumerate((SOURCE_SOURCE, TARGET, NULL))}  # null rows come last
READS = {TARGET: SOURCE_SOURCE, NULL: SOURCE_SOURCE}


class Explicit:
    """An attention processor that writes the matrix out, with the source's keys and values for the other rows."""

    def __call__(self, attn: Any, x: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        read = torch.cat([x[ROWS[READS.get(branch, branch)]] for branch in ROWS])
        q, k, v = (
            rearrange(project(y), "n t (h d) -> n h t d", h=attn.heads)
            for project, y in ((attn.to_q, x), (attn.to_k, read), (attn.to_v, read))
        )
        p = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        return attn.to_out[0](rearrange(p @ v, "n h t d -> n t (h d)"))


@torch.no_grad()
def predicted(network: Backbone, *hooks: MutualSelfAttention, branches: tuple[Branch, ...] = tuple(ROWS)) -> dict[Branch, Tensor]:
    z = torch.randn(2, 2, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    text = {name: network.embed([prompt] * 2) for name, prompt in (("null", ""), ("source", "a cat"), ("target", "a dog"))}
    outputs = call(network, {"edit": z[0], "source": z[1]}, torch.full((2,), 500), text, branches, hooks)
    return {row: outputs.eps[row] for row in branches}


@pytest.mark.parametrize("level", [0, 1])
def test_it_is_what_explicit_matrices_give(tiny: Backbone, level: int) -> None:
    ours, layers = predicted(tiny, MutualSelfAttention(READS, level)), decoder_layers(tiny.layout, level)
    assert {layer.part for layer in layers} == {"up"}
    modules = [tiny.denoiser.get_submodule(layer.name) for layer in layers]
    try:
        for module in modules:
            module.set_processor(Explicit())
        wanted = predicted(tiny)
    finally:
        for module in modules:
            module.set_processor(AttnProcessor2_0())
    plain = predicted(tiny)
    for branch in ROWS:
        torch.testing.assert_close(ours[branch], wanted[branch], rtol=0, atol=1e-5)
        assert torch.equal(ours[branch], plain[branch]) == (branch == SOURCE_SOURCE)


def test_a_branch_that_is_not_asked_for_is_left_out(tiny: Backbone) -> None:
    both, hook = (SOURCE_SOURCE, TARGET), MutualSelfAttention(READS, 1)
    torch.testing.assert_close(predicted(tiny, hook, branches=both)[TARGET], predicted(tiny, hook)[TARGET], rtol=0, atol=1e-6)


def test_a_flow_is_refused() -> None:
    with pytest.raises(UserError, match="looks at both in one layer"):
        load_method(load_settings("masactrl", model="tinyworld-flow"))
