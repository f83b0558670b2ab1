"""FLUX.1: the inputs of diffusers' own pipeline, joint attention against explicit matrices, every method."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from transformers import CLIPTextModel, T5Config, T5EncoderModel

from sdist.cli import main
from sdist.errors import UserError
from sdist.hooks.attach import record
from sdist.hooks.attention import Attention
from sdist.losses.sds import SDS
from sdist.models.base import Backbone
from sdist.models.flux import T5_TOKENS, FluxLayout
from sdist.models.loading import load_backbone
from sdist.prediction import NULL, TARGET, call

from ..conftest import tiny_text_config, tiny_tokenizer
from .test_stable_diffusion_3 import t5_tokenizer


def save_tiny_flux(folder: Path, dev: bool = True, **changed: int) -> Path:
    """Random weights in the layout of FLUX.1 dev, or of schnell: no embedded guidance, no shift."""
    torch.manual_seed(0)
    words = tiny_tokenizer()
    clip = tiny_text_config(words, layers=2)
    t5 = T5Config(vocab_size=len(t5_tokenizer()), d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    transformer = {"in_channels": 16, "joint_attention_dim": 24, "pooled_projection_dim": clip.hidden_size} | changed
    pipeline = FluxPipeline(
        transformer=FluxTransformer2DModel(
            num_layers=3, num_single_layers=2, attention_head_dim=8, num_attention_heads=2, guidance_embeds=dev,
            axes_dims_rope=(2, 2, 4), **transformer,
        ),
        vae=AutoencoderKL(
            block_out_channels=(4, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1, norm_num_groups=2, latent_channels=4, scaling_factor=0.5, shift_factor=0.1, sample_size=32,
            use_quant_conv=False, use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModel(clip), tokenizer=words, text_encoder_2=T5EncoderModel(t5), tokenizer_2=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0 if dev else 1.0, use_dynamic_shifting=dev),
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["dev", "schnell"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_flux(tmp_path_factory.mktemp("flux"), request.param == "dev")


@pytest.fixture(scope="module")
def flux(folder: Path) -> Backbone:
    return load_backbone(str(folder), "cpu")


def noisy(b: int = 1) -> torch.Tensor:
    return torch.randn(b, 4, 6, 8, generator=torch.Generator().manual_seed(1))


def scale_of(flux: Backbone, b: int) -> torch.Tensor | None:
    return torch.full((b,), 3.5) if flux.guidance == "embedded" else None


def test_prompts_are_those_of_the_pipeline(folder: Path, flux: Backbone) -> None:
    prompts = ["a cat", "", "a dog wearing a hat"]
    tokens, pooled, _ = FluxPipeline.from_pretrained(folder).encode_prompt(prompts, None)
    text = flux.embed(prompts)
    torch.testing.assert_close(text.tokens, tokens, rtol=0, atol=5e-5)
    torch.testing.assert_close(text.pooled, pooled, rtol=0, atol=1e-6)
    assert text.tokens.shape[1] == flux.text.length == T5_TOKENS


def test_velocity_is_that_of_the_pipeline_with_its_packing_and_positions(folder: Path, flux: Backbone) -> None:
    """On latents that are not square, so that swapped positions or sides would show."""
    pipeline, text, z = FluxPipeline.from_pretrained(folder), flux.embed(["a cat", "a dog"]), noisy(2)
    packed = pipeline._pack_latents(z, 2, 4, 6, 8)
    places = pipeline._prepare_latent_image_ids(2, 3, 4, "cpu", torch.float32)
    s = torch.tensor([1.0, 0.25])
    expected = pipeline.transformer(
        packed, text.tokens, text.pooled, s, places, torch.zeros(T5_TOKENS, 3), scale_of(flux, 2), return_dict=False
    )[0]
    t = torch.tensor([flux.timestep(value, (6, 8)) for value in s.tolist()])
    ours = flux.estimate(z, t, text, scale_of(flux, 2))
    torch.testing.assert_close(ours.velocity, pipeline._unpack_latents(expected, 48, 64, 8), rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.sigma, s)


@pytest.mark.parametrize("size", [(6, 8), (32, 32), (128, 128)])
def test_levels_are_shifted_as_the_pipeline_shifts_them(folder: Path, flux: Backbone, size: tuple[int, int]) -> None:
    """Its schedule for 28 steps: by the number of tokens for dev, not at all for schnell."""
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
    sigmas = np.linspace(1, 1 / 28, 28)
    scheduler.set_timesteps(sigmas=sigmas, mu=calculate_shift(size[0] * size[1] // 4))
    _, sigma = flux.scales(torch.tensor(1000 * sigmas), size)
    torch.testing.assert_close(sigma.float(), scheduler.sigmas[:-1], rtol=0, atol=1e-6)
    if flux.guidance == "cfg":
        torch.testing.assert_close(sigma, torch.tensor(sigmas))


def test_clean_and_noise_make_up_the_noisy_latents_at_every_level(flux: Backbone) -> None:
    t, z_t = torch.tensor([0, 1, 500, 1000]), torch.randn(4, 4, 8, 8)
    estimate = flux.estimate(z_t, t, flux.embed(["a cat"]).repeat(4), scale_of(flux, 4))
    a, g = (x[:, None, None, None] for x in flux.scales(t, (8, 8)))
    torch.testing.assert_close(a * estimate.clean + g * estimate.eps, z_t, rtol=0, atol=1e-5)
    torch.testing.assert_close(estimate.eps - estimate.clean, estimate.velocity, rtol=0, atol=1e-5)


def test_guidance_is_a_row_of_its_own_only_where_it_is_not_embedded(flux: Backbone) -> None:
    """Both end in the same place: a loss that asks for a guided branch."""
    text = {"target": flux.embed(["a cat"]), "null": flux.embed([""])}
    outputs = call(flux, {"edit": noisy()}, torch.tensor([500]), text, SDS(guidance_scale=4.0).branches)
    rows = set(outputs.estimates)
    assert rows == ({TARGET.guided(4.0)} if flux.guidance == "embedded" else {TARGET, NULL})


def probabilities(flux: Backbone, block: str, z: torch.Tensor) -> tuple[torch.Tensor, int]:
    """softmax over all keys, (heads, text + image, text + image), by diffusers' own rotation; how many are of the text."""
    attention, parts = flux.denoiser.get_submodule(block), {}
    names = ["norm_q", "norm_k", *(["norm_added_q", "norm_added_k"] if block.startswith("transformer") else [])]
    handles = [
        attention.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: parts.update({name: out}))
        for name in names
    ]
    handles.append(flux.denoiser.pos_embed.register_forward_hook(lambda _, __, out: parts.update(turn=out)))
    flux.estimate(z, torch.tensor([600]), flux.embed(["a cat"]), scale_of(flux, 1))
    for handle in handles:
        handle.remove()
    q, k = (
        apply_rotary_emb(torch.cat([parts[name] for name in pair if name in parts], 1), parts["turn"], sequence_dim=1)
        for pair in (("norm_added_q", "norm_q"), ("norm_added_k", "norm_k"))
    )
    return torch.einsum("nqhd,nkhd->hqk", q, k).mul(8**-0.5).softmax(-1), T5_TOKENS


@pytest.mark.parametrize("block", ["transformer_blocks.1.attn", "single_transformer_blocks.0.attn"])
def test_maps_are_those_of_explicit_joint_attention(flux: Backbone, block: str) -> None:
    explicit, text = probabilities(flux, block, noisy())
    layer = FluxLayout(flux.denoiser).layer(block)
    names = [name for kind in ("cross", "self") for name in flux.layout.reads(kind, layer)]
    with torch.no_grad(), record(flux, names, slice(0, 1)) as tape:
        flux.estimate(noisy(), torch.tensor([600]), flux.embed(["a cat"]), scale_of(flux, 1))
        cross, own = ({layer: flux.layout.queries_and_keys(kind, layer, tape.__getitem__)} for kind in ("cross", "self"))
    focus = torch.zeros(1, text)
    focus[0, [1, 3]] = 1
    expected = explicit[:, text:, [1, 3]].mean((0, 2))
    image = explicit[:, text:, text:]
    refined = (image / image.sum(-1, keepdim=True)).mean(0) @ expected
    attention = Attention(cross, own, (6, 8))
    torch.testing.assert_close(attention.cross_map(focus).flatten(), expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(attention.refined(focus).flatten(), refined, rtol=0, atol=1e-7)


def test_masks_are_made_of_known_blocks_or_of_the_middle_third(flux: Backbone) -> None:
    assert [layer.name for layer in flux.layout.layers("cross")] == ["transformer_blocks.1.attn"]
    flux.denoiser.fuse_qkv_projections()
    with pytest.raises(UserError, match=r"transformer_blocks\.1\.attn has fused projections"):
        flux.layout.layers("cross")
    flux.denoiser.unfuse_qkv_projections()


@pytest.mark.parametrize("method", ["lusd", "lusd_difference", "dds", "cds", "sbp", "flowedit", "rfds"])
def test_every_method_edits_with_it(folder: Path, picture: Path, tmp_path: Path, method: str) -> None:
    command = ["edit", str(picture), "--source", "a cat", "--target", "a cat wearing a hat", "--model", str(folder)]
    options = ["--steps", "2", "--quiet", *(["--set", "scale.threshold=0.0001"] if method.startswith("lusd") else [])]
    assert main([*command, "--method", method, "--output", str(tmp_path / "out"), *options]) == 0
    (card,) = (tmp_path / "out").glob("*.json")
    assert main(["replay", str(card.with_suffix(".png")), "--quiet"]) == 0


def test_a_model_of_other_widths_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no FLUX\.1: its transformer reads 20 pooled text width, it gets 32|reads 20 pooled"):
        load_backbone(str(save_tiny_flux(tmp_path, pooled_projection_dim=20)), "cpu")


def test_the_index_of_a_hub_model_with_older_names_of_classes_loads(tmp_path: Path) -> None:
    index = save_tiny_flux(tmp_path) / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"tokenizer_2": ["transformers", "T5TokenizerFast"]}))
    assert load_backbone(str(tmp_path), "cpu").guidance == "embedded"
