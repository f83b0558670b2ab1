"""Image tokens in the network against diffusers' own processors, and which rows they change."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from sdist.hooks.image_tokens import ImageTokens, SharedAttention
from sdist.image_guidance.adapter import Adapter, read_adapter
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.prediction import NULL, SOURCE_SOURCE, TARGET, Branch, call

GOLDEN = Path(__file__).parent.parent / "golden"
FILE = GOLDEN / "ip_adapter" / "models" / "ip-adapter_sd15.safetensors"
ROWS = (NULL, SOURCE_SOURCE, TARGET)
SIDES = (16, 24)


@pytest.fixture(scope="module")
def golden() -> Backbone:
    return load_backbone(str(GOLDEN / "pipeline"), "cpu")


@pytest.fixture(scope="module")
def adapter() -> Adapter:
    return read_adapter(FILE, "cpu")


def embedding(b: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(b, 24, generator=torch.Generator().manual_seed(seed))


def hook(model: Backbone, adapter: Adapter, branches: dict[Branch, torch.Tensor], scale: float = 0.4) -> ImageTokens:
    return adapter.hook([layer.name for layer in model.layout.layers("cross")], branches, scale)


@torch.no_grad()
def predicted(model: Backbone, *hooks: ImageTokens, b: int = 2) -> dict[Branch, torch.Tensor]:
    z = torch.randn(2, 2, 4, *SIDES, generator=torch.Generator().manual_seed(1))[:, :b]
    text = {name: model.embed([prompt] * b) for name, prompt in (("null", ""), ("source", "a cat"), ("target", "a dog"))}
    outputs = call(model, {"edit": z[0], "source": z[1]}, torch.full((b,), 500), text, ROWS, hooks)
    return {row: outputs.eps[row] for row in ROWS}


def test_they_are_what_diffusers_computes(golden: Backbone, adapter: Adapter) -> None:
    rows = {row: embedding(seed=i) for i, row in enumerate(ROWS)}
    ours = predicted(golden, hook(golden, adapter, rows, 0.7))
    config = json.loads((GOLDEN / "pipeline/unet/config.json").read_text())
    network = UNet2DConditionModel.from_config(config)
    network.load_state_dict(golden.denoiser.state_dict())
    weights, names = load_file(FILE), ("image_proj", "ip_adapter")
    parts = {name: {k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(name)} for name in names}
    network._load_ip_adapter_weights([parts])
    for processor in network.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [0.7]
    z = torch.randn(2, 2, 4, *SIDES, generator=torch.Generator().manual_seed(1))
    words = torch.cat([golden.embed([p] * 2).tokens for p in ("", "a cat", "a dog")])
    conditions = {"image_embeds": [torch.cat([*rows.values()])[:, None]]}
    with torch.no_grad():
        theirs = network(torch.cat([z[0], z[1], z[0]]), 500, words, added_cond_kwargs=conditions, return_dict=False)[0]
    torch.testing.assert_close(torch.cat([*ours.values()]), theirs, rtol=0, atol=2e-5)


def test_other_rows_and_the_network_stay_as_they_were(golden: Backbone, adapter: Adapter) -> None:
    plain = predicted(golden)
    guided = predicted(golden, hook(golden, adapter, {TARGET: embedding()}))
    assert [torch.equal(plain[row], guided[row]) for row in ROWS] == [True, True, False]
    assert torch.equal(predicted(golden)[TARGET], plain[TARGET])
    assert torch.equal(predicted(golden, hook(golden, adapter, {TARGET: embedding()}, scale=0.0))[TARGET], plain[TARGET])


def test_zero_is_not_off(golden: Backbone, adapter: Adapter) -> None:
    """Bias and normalization make tokens of an embedding of zeros."""
    guided = predicted(golden, hook(golden, adapter, {TARGET: torch.zeros(2, 24)}))
    assert not torch.equal(guided[TARGET], predicted(golden)[TARGET])


def test_shared_attention_to_the_image_is_the_sources(golden: Backbone, adapter: Adapter) -> None:
    """Where both branches read one image, sharing its map changes the target alone; a level that is too coarse shares nothing."""
    images = hook(golden, adapter, {SOURCE_SOURCE: embedding(), TARGET: embedding(seed=1)}, 1.0)
    own = predicted(golden, images)
    for level, changes in ((0, True), (1, True), (9, False)):
        shared = ImageTokens(images.keys, images.values, 1.0, SharedAttention(SOURCE_SOURCE, TARGET, level))
        ours = predicted(golden, shared)
        assert [torch.equal(ours[row], own[row]) for row in ROWS] == [True, True, not changes]


def test_company_changes_nothing(golden: Backbone, adapter: Adapter) -> None:
    rows = {SOURCE_SOURCE: embedding(), TARGET: embedding(seed=1)}
    both = predicted(golden, hook(golden, adapter, rows))
    alone = predicted(golden, hook(golden, adapter, {row: e[:1] for row, e in rows.items()}), b=1)
    for row in ROWS:
        torch.testing.assert_close(alone[row], both[row][:1], rtol=0, atol=1e-5)
