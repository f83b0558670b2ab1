"""LIME against diffusers' own pipeline with explicit matrices, and what an instruction, a mask and a word change."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.config.methods import shipped
from sdist.denoising.instructed import INSTRUCTED, SEEING, Scales
from sdist.editors.base import Observers
from sdist.editors.lime import tokens_of
from sdist.editors.loading import LoadedMethod
from sdist.edits.request import Request, Result
from sdist.errors import UserError
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.regions.attention import AttentionRegion

from ..conftest import read_json, save_tiny_pipeline
from ..pipeline.test_changed_networks import ToMeBlock
from .test_instruct_pix2pix import of_diffusers

INSTRUCTION = "a red hat in the snow"
STEPS, RECORDED, PENALIZED = 4, 1, 3
QUICK = (
    f"editor.num_inference_steps={STEPS}", f"editor.recorded_step={RECORDED}", f"editor.penalized_steps={PENALIZED}",
    "size=keep", "editor.region.levels=[0,1,2]", "editor.region.clusters=4", "editor.region.points=3",
)  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("lime"), in_channels=8)


@pytest.fixture(scope="session")
def model(folder: Path) -> Backbone:
    return load_backbone(str(folder), "cpu", conditions=1)


def method(model: Backbone, *overrides: str, name: str = "lime") -> LoadedMethod:
    return LoadedMethod(load_settings(name, [*QUICK, *overrides]), model)


def edited(model: Backbone, requests: Sequence[Request], *overrides: str) -> list[Result]:
    lime = method(model, *overrides)
    return lime.edit([lime.prepare(request) for request in requests], Observers(parallel=len(requests)))


def walked(model: Backbone, requests: Sequence[Request], *overrides: str) -> Any:
    lime = method(model, *overrides)
    with torch.no_grad():
        *_, last = lime.editor.walk_steps(model, [lime.prepare(request) for request in requests])
        return last


@pytest.fixture
def request_of(picture: Path):
    return lambda instruction=INSTRUCTION, **more: Request(picture, "", "", instruction=instruction, **more)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    pixels = np.zeros((32, 32), np.uint8)
    pixels[8:24, 4:20] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


class Biased:
    """An attention processor of diffusers whose scores get the penalty, in all three rows, while it is on."""

    def __init__(self, region: Tensor, effective: Sequence[int], owner: dict) -> None:
        self.region, self.effective, self.owner = region, list(effective), owner

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **more: Any) -> Tensor:
        if not self.owner["on"]:
            return AttnProcessor()(attn, hidden_states, encoder_hidden_states)
        side = int(hidden_states.shape[1] ** 0.5)
        step = self.region.shape[-1] // side
        inside = self.region[::step, ::step].flatten()
        bias = torch.zeros(len(inside), encoder_hidden_states.shape[1])
        bias[inside] = torch.finfo(torch.float32).min
        bias[:, self.effective] = 0
        heads = 3 * attn.heads
        return AttnProcessor()(attn, hidden_states, encoder_hidden_states, attention_mask=bias.expand(heads, -1, -1))


def test_the_second_walk_is_diffusers_pipeline_with_a_bias(model: Backbone, request_of) -> None:
    """The region is ours; which steps, layers, rows and tokens it acts on is said again here."""
    request = request_of()
    ours = walked(model, [request], "editor.guidance_scale=2")
    effective = tokens_of(model.text, request.instruction, "paper").effective
    owner, calls = {"on": True}, 0
    biased = Biased(ours.masks[0][0].bool(), effective, owner)
    before, forward = dict(model.denoiser.attn_processors), model.denoiser.forward
    cross = {layer.name for layer in model.layout.layers("cross") if layer.level in (0, 1)}

    def counted(*inputs: Any, **options: Any) -> Any:
        nonlocal calls
        owner["on"], calls = calls < PENALIZED, calls + 1
        return forward(*inputs, **options)

    try:
        model.denoiser.forward = counted
        for name in cross:
            model.denoiser.get_submodule(name).set_processor(biased)
        wanted = of_diffusers(model, request, (2.0, 1.5))
    finally:
        model.denoiser.set_attn_processor(before)
        del model.denoiser.forward
    torch.testing.assert_close(ours.latents, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    assert not torch.allclose(wanted, of_diffusers(model, request, (2.0, 1.5)), atol=1e-3)


@pytest.mark.parametrize("change", ["editor.penalized_steps=0", "editor.penalized_rows=instructed", "editor.penalized_levels=[1]",
                                    "editor.guidance_scale=3"])  # fmt: skip
def test_each_part_of_the_second_walk_counts(model: Backbone, request_of, change: str) -> None:
    ours, other = walked(model, [request_of()]), walked(model, [request_of()], change)
    assert torch.equal(ours.masks[0], other.masks[0])
    assert not torch.allclose(ours.latents, other.latents, atol=1e-3)


@pytest.mark.parametrize(
    "change",
    ["editor.region.points=90", "editor.region.clusters=9", "editor.recorded_step=3", "editor.region=attention",
     "editor.localize_guidance_scale=30"],
)  # fmt: skip
def test_each_part_of_the_first_walk_counts(model: Backbone, request_of, change: str) -> None:
    requests = [request_of(seed=seed) for seed in range(3)]
    ours, other = walked(model, requests), walked(model, requests, change)
    assert not all(torch.equal(a, b) for a, b in zip(ours.masks, other.masks, strict=True))


def test_company_changes_nothing_and_each_has_its_own_region(model: Backbone, request_of, mask: Path) -> None:
    requests = [request_of(), request_of("a dog", seed=3), request_of(mask=mask), request_of("in the"), request_of()]
    together = walked(model, requests)
    assert [m is None for m in together.masks] == [False, False, False, True, False]
    assert torch.equal(together.masks[0], together.masks[4])
    for row, request in enumerate(requests):
        alone = walked(model, [request])
        torch.testing.assert_close(together.latents[row : row + 1], alone.latents, rtol=0, atol=1e-4)
        assert alone.masks[0] is together.masks[row] is None or torch.equal(alone.masks[0], together.masks[row])


def test_a_mask_image_is_the_region(model: Backbone, request_of, mask: Path) -> None:
    (region,) = walked(model, [request_of(mask=mask)]).masks
    wanted = torch.zeros(1, 16, 16)
    wanted[:, 4:12, 2:10] = 1
    assert torch.equal(region, wanted)
    (result,) = edited(model, [request_of(mask=mask)])
    assert torch.equal(result.mask, wanted)


def test_named_words_are_the_related_ones(model: Backbone, request_of) -> None:
    lime = method(model)
    assert lime.prepare(request_of()).words == ("red", "hat", "snow")
    named = lime.prepare(replace(request_of(), words=("hat",)))
    assert (named.words, named.tokens) == (("hat",), (3,))
    with pytest.raises(UserError, match="unknown word 'dog' in the instruction 'a red hat in the snow'"):
        lime.prepare(replace(request_of(), words=("dog",)))


def plain(model: Backbone, request: Request) -> Tensor:
    ip2p = LoadedMethod(load_settings("instruct_pix2pix", [QUICK[0], "size=keep", "editor.guidance_scale=2"]), model)
    with torch.no_grad():
        return ip2p.editor.walk(model, [ip2p.prepare(request)])


def test_without_a_word_that_says_something_it_is_instruct_pix2pix_to_the_bit(model: Backbone, request_of, caplog) -> None:
    request = request_of("in the")
    assert torch.equal(walked(model, [request]).latents, plain(model, request))
    assert "picture.png: no word of 'in the' says what is edited: no region" in caplog.text


@pytest.mark.parametrize(("value", "message"), [(0, "the region is empty"), (255, "the region is the whole image")])
def test_an_empty_and_a_whole_region_are_said(
    model: Backbone, request_of, tmp_path: Path, caplog, value: int, message: str
) -> None:
    Image.new("L", (32, 32), value).save(tmp_path / "mask.png")
    request = request_of(mask=tmp_path / "mask.png")
    out = walked(model, [request]).latents
    assert f"picture.png: {message}" in caplog.text
    assert torch.equal(out, plain(model, replace(request, mask=None))) == (value == 0)


def test_more_clusters_and_points_than_cells(model: Backbone, request_of, caplog) -> None:
    assert walked(model, [request_of()], "editor.region.clusters=300", "editor.region.points=500").masks[0].all()
    assert "300 clusters, 500 points: the image has 256 cells, no more are taken" in caplog.text


def test_any_size(model: Backbone, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (36, 52, 3), np.uint8)).save(tmp_path / "wide.png")
    (result,) = edited(model, [Request(tmp_path / "wide.png", "", "", instruction=INSTRUCTION)])
    assert (result.image.size, result.mask.shape) == ((52, 36), (1, 18, 26))


# --- presets and bad input ---------------------------------------------------------------------------------------------


def test_presets_differ_where_paper_and_release_do() -> None:
    lime, released = (load_settings(name).editor for name in ("lime", "lime_released"))
    differ = replace(released, tokens=lime.tokens, region=lime.region)
    assert differ == lime
    assert (released.region.points, lime.region.points) == (1, 100)
    assert "Not known from it" in shipped("method")["lime"].read_text()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("editor.recorded_step=30", r"recorded_step is one of the num_inference_steps, 0..29, got 30"),
        ("editor.penalized_steps=31", "penalized_steps is a part of num_inference_steps, 0..30, got 31"),
        ("editor.localize_guidance_scale=.nan", "localize_guidance_scale must be finite, got nan"),
        ("editor.region=null", "region cannot be null"),
        ("editor.region.clusters=0", "clusters must be at least 1, got 0"),
        ("editor.region.points=0", "points must be at least 1, got 0"),
        ("editor.region=segment", "unknown region 'segment'"),
        ("editor.tokens=all", "tokens"),
        ("editor.penalized_rows=two", "penalized_rows"),
    ],
)
def test_bad_settings_are_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        load_settings("lime", [override])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("editor.region.levels=[7]", r"no cross-attention at level 7 .*; have levels \[0, 1"),
        ("editor.penalized_levels=[7]", r"no cross-attention at level 7 .*; have levels \[0, 1"),
    ],
)
def test_a_model_without_such_attention_is_known_at_once(model: Backbone, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        method(model, override)


def test_an_attention_region_has_bounds_too(model: Backbone) -> None:
    with pytest.raises(UserError, match=r"threshold of a region must be within 0..1, not 0, got 0"):
        AttentionRegion(threshold=0)
    with pytest.raises(UserError, match="no cross-attention at level 5"):
        AttentionRegion(cross_level=5).check(model.layout)


def test_a_grounding_spreads_attention_further(model: Backbone, request_of) -> None:
    """s_i = keep s_{i-1} + (1 - keep) A s_{i-1}, five times, on the grid of the region."""
    lime = method(model, "editor.region=grounding")
    prepared = lime.prepare(request_of())
    hook = lime.editor.region.hook(INSTRUCTED, SEEING)
    with torch.no_grad():
        seen = next(iter(lime.editor.walked(model, [prepared], Scales(5.0, 1.5), lambda k: [hook]))).outputs.recorded[hook]
        (region,) = lime.editor.region.regions(seen, [prepared.tokens], [])
    focus = torch.zeros(1, model.text.length)
    focus[0, list(prepared.tokens)] = 1
    matrix = seen.spread()(torch.eye(seen.grid[0] * seen.grid[1])[None])
    column = F.interpolate(seen.cross_map(focus), seen.grid, mode="bicubic").flatten(2).mT
    for _ in range(5):
        column = (column + matrix @ column) / 2
    wanted = F.interpolate(column.mT.unflatten(2, seen.grid), region.mask.shape, mode="bicubic")[0, 0]
    assert torch.allclose(region.attention, wanted, atol=1e-7)
    assert torch.equal(region.mask, wanted >= wanted.min() + 0.5 * (wanted.max() - wanted.min()))
    with pytest.raises(UserError, match=r"keep of a region must be within 0..1, not 1, got 1"):
        AttentionRegion(keep=1)
    with pytest.raises(UserError, match="iterations must be at least 1, got 0"):
        AttentionRegion(iterations=0)


@pytest.mark.usefixtures("unchecked")
def test_merged_tokens_are_refused(folder: Path, request_of) -> None:
    network = load_backbone(str(folder), "cpu", conditions=1)
    for block in network.denoiser.modules():
        if isinstance(block, BasicTransformerBlock):
            block.__class__ = ToMeBlock
    lime = method(network)
    with pytest.raises(UserError, match="something merges or drops tokens"):
        lime.edit([lime.prepare(request_of())])


def test_a_fused_network_is_refused(folder: Path) -> None:
    network = load_backbone(str(folder), "cpu", conditions=1)
    network.denoiser.fuse_qkv_projections()
    with pytest.raises(UserError, match="fused projections"):
        method(network)


def made(folder: Path, seed: int = 0, end: str = ".png") -> Path:
    """A file of the one result of that seed."""
    (path,) = folder.glob(f"picture_*_seed{seed}{end}")
    return path


def test_the_command_shows_the_region_and_its_card_replays(folder: Path, picture: Path, tmp_path: Path, capsys) -> None:
    edit = ["edit", str(picture), "--instruction", INSTRUCTION, "--method", "lime", "--model", str(folder), "--quiet"]
    assert main([*edit, "--output", str(tmp_path), "--set", *QUICK]) == 0
    assert Image.open(made(tmp_path, 0, "_panel.png")).width > 2.9 * 32  # source, region, edit
    assert read_json(made(tmp_path, 0, ".json"))["words"] == ["red", "hat", "snow"]
    capsys.readouterr()
    assert main(["replay", str(made(tmp_path)), "--quiet"]) == 0
    assert "identical" in capsys.readouterr().out
