"""Stable Diffusion 3 and 3.5: the inputs of diffusers' own pipeline, joint attention against explicit matrices, every method."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from einops import rearrange
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

from sdist.cli import main
from sdist.errors import UserError
from sdist.hooks.attention import AttentionRecorder
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.models.stable_diffusion_3 import T5_TOKENS
from sdist.prediction import TARGET

from ..conftest import tiny_text_config, tiny_tokenizer

PIECES = ["▁", "▁a", "▁cat", "▁dog", "▁hat", *"abcdefghijklmnopqrstuvwxyz"]


def t5_tokenizer() -> T5Tokenizer:
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return T5Tokenizer(vocab=[*marks, *((piece, -float(i + 2)) for i, piece in enumerate(PIECES))])


def save_tiny_sd3(
    folder: Path, t5: bool = True, qk_norm: str | None = None, dual: tuple[int, ...] = (), t5_width: int = 40, joint: int = 40
) -> Path:
    """Random weights in the layout of Stable Diffusion 3; with qk_norm and dual layers in that of 3.5 medium."""
    torch.manual_seed(0)
    words = tiny_tokenizer()
    config = tiny_text_config(words, layers=2)
    config.projection_dim = 8
    text_3 = T5Config(vocab_size=len(t5_tokenizer()), d_model=t5_width, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=4, attention_head_dim=8,
            num_attention_heads=2, caption_projection_dim=16, joint_attention_dim=joint, pooled_projection_dim=16,
            pos_embed_max_size=8, qk_norm=qk_norm, dual_attention_layers=dual,
        ),
        vae=AutoencoderKL(
            block_out_channels=(4, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1, norm_num_groups=2, latent_channels=4, scaling_factor=0.5, shift_factor=0.1,
            use_quant_conv=False, use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModelWithProjection(config), text_encoder_2=CLIPTextModelWithProjection(config), tokenizer=words,
        tokenizer_2=words, text_encoder_3=T5EncoderModel(text_3) if t5 else None, tokenizer_3=t5_tokenizer() if t5 else None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


KINDS = {"t5": {}, "no t5": {"t5": False}, "3.5": {"qk_norm": "rms_norm", "dual": (0, 1)}}


@pytest.fixture(scope="module", params=list(KINDS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_sd3(tmp_path_factory.mktemp("sd3"), **KINDS[request.param])


@pytest.fixture(scope="module")
def sd3(folder: Path) -> Backbone:
    return load_backbone(str(folder), "cpu")


def own_pipeline(folder: Path, sd3: Backbone) -> StableDiffusion3Pipeline:
    absent = {} if sd3.text.has_t5 else {"text_encoder_3": None, "tokenizer_3": None}
    return StableDiffusion3Pipeline.from_pretrained(folder, **absent)


def test_prompts_are_those_of_the_pipeline(folder: Path, sd3: Backbone) -> None:
    prompts = ["a cat", "", "a dog wearing a hat"]
    pipeline = own_pipeline(folder, sd3)
    tokens, _, pooled, _ = pipeline.encode_prompt(prompts, None, None, do_classifier_free_guidance=False)
    text = sd3.embed(prompts)
    torch.testing.assert_close(text.tokens, tokens, rtol=0, atol=5e-5)
    torch.testing.assert_close(text.pooled, pooled, rtol=0, atol=1e-6)
    assert text.tokens.shape[1] == sd3.text.length == 24 + T5_TOKENS


def test_velocity_level_and_latents_are_those_of_the_pipeline(folder: Path, sd3: Backbone) -> None:
    pipeline, text = own_pipeline(folder, sd3), sd3.embed(["a cat", "a dog"])
    z, t = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([1000, 250])
    levels = pipeline.scheduler.timesteps[[0, 750]]  # 1000 s: the scheduler's table begins at the last level
    expected = pipeline.transformer(z, text.tokens, text.pooled, levels, return_dict=False)[0]
    alpha, sigma = sd3.scales(t, (6, 8))
    torch.testing.assert_close(1000 * sigma, levels, rtol=0, atol=1e-3)
    torch.testing.assert_close(alpha, 1 - levels / 1000, rtol=0, atol=1e-6)
    torch.testing.assert_close(sd3.estimate(z, t, text).velocity, expected, rtol=0, atol=1e-5)
    pixels = torch.rand(1, 3, 24, 32) * 2 - 1
    mean = pipeline.vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(sd3.encode(pixels), (mean - 0.1) * 0.5)
    assert (sd3.multiple, sd3.native_side, sd3.channels) == (8, 32, 4)


def test_clean_and_noise_make_up_the_noisy_latents_at_every_level(sd3: Backbone) -> None:
    t, z_t = torch.tensor([0, 1, 500, 1000]), torch.randn(4, 4, 8, 8)
    estimate, (a, g) = (
        sd3.estimate(z_t, t, sd3.embed(["a cat"]).repeat(4)),
        (x[:, None, None, None] for x in sd3.scales(t, (8, 8))),
    )
    torch.testing.assert_close(a * estimate.clean + g * estimate.eps, z_t, rtol=0, atol=1e-5)
    torch.testing.assert_close(estimate.eps - estimate.clean, estimate.velocity, rtol=0, atol=1e-5)


def joint_probabilities(sd3: Backbone, name: str, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """softmax over all keys, (b, heads, image + text queries, image + text keys), as a matrix."""
    attention = sd3.denoiser.get_submodule(name)

    def heads(kind: str, norm: str, x: torch.Tensor) -> torch.Tensor:
        split = rearrange(attention.get_submodule(kind)(x), "b n (h d) -> b h n d", h=attention.heads)
        return split if getattr(attention, norm) is None else getattr(attention, norm)(split)

    q = torch.cat([heads("to_q", "norm_q", image), heads("add_q_proj", "norm_added_q", text)], 2)
    k = torch.cat([heads("to_k", "norm_k", image), heads("add_k_proj", "norm_added_k", text)], 2)
    return (q @ k.mT * attention.scale).softmax(-1)


def test_maps_are_those_of_explicit_joint_attention(sd3: Backbone) -> None:
    inputs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    names = [layer.name for layer in sd3.layout.layers("cross")]
    assert names == ["transformer_blocks.1.attn", "transformer_blocks.2.attn"]  # the middle third of four
    handles = [
        sd3.denoiser.get_submodule(name).register_forward_pre_hook(
            lambda _, __, given, name=name: inputs.update({name: (given["hidden_states"], given["encoder_hidden_states"])}),
            with_kwargs=True,
        )
        for name in names
    ]
    z, text = torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(1)), sd3.embed(["a cat"])
    plain = sd3.estimate(z, torch.tensor([600]), text).velocity
    with AttentionRecorder(TARGET, 1, 1).open(sd3, {TARGET: slice(None)}) as value:
        watched = sd3.estimate(z, torch.tensor([600]), text).velocity
        attention = value((6, 8))
    for handle in handles:
        handle.remove()
    assert torch.equal(plain, watched)
    focus = torch.zeros(1, sd3.text.length)
    focus[0, [2, 26]] = 1
    every = torch.stack([joint_probabilities(sd3, name, *inputs[name]) for name in names])  # (layers, 1, heads, n, n)
    cross = every[:, 0, :, :12, 12:][..., [2, 26]].mean((0, 1, 3)).reshape(1, 1, 3, 4)
    own = every[:, 0, :, :12, :12]
    own = (own / own.sum(-1, keepdim=True)).mean((0, 1))
    expected = torch.einsum("qk,k->q", own, cross.flatten()).reshape(1, 1, 3, 4)
    found, refined = attention.cross_map(focus), attention.refined(focus)
    torch.testing.assert_close(found - found.mean(), cross - cross.mean(), rtol=0, atol=1e-6)
    torch.testing.assert_close(refined - refined.mean(), expected - expected.mean(), rtol=0, atol=1e-6)


def test_a_word_is_found_in_the_tokens_of_every_encoder(sd3: Backbone) -> None:
    spans = sd3.text.token_spans("a cat")
    assert len(spans) == sd3.text.length
    assert [i for i, span in enumerate(spans) if span == (2, 5)] == ([2, 25] if sd3.text.has_t5 else [2])


def edit(folder: Path, picture: Path, output: Path, method: str, *more: str) -> int:
    """The exit code of an edit on the command line."""
    command = ["edit", str(picture), "--source", "a cat", "--target", "a cat wearing a hat", "--model", str(folder)]
    return main([*command, "--method", method, "--output", str(output), "--quiet", *more])


@pytest.mark.parametrize(
    "method",
    ["lusd", "lusd_difference", "dds", "cds", "sds", "sbp", "dds_lusd", "ids", "ism", "chordedit", "dreamsampler", "vsd"],
)
def test_every_method_edits_with_it(folder: Path, picture: Path, tmp_path: Path, method: str) -> None:
    assert edit(folder, picture, tmp_path / "out", method, "--steps", "2", "--set", "scale.threshold=0.0001") == 0
    (card,) = (tmp_path / "out").glob("picture_*_seed0.json")
    assert main(["replay", str(card.with_suffix(".png")), "--quiet"]) == 0
    assert json.loads(card.read_text())["settings"]["steps"] == 2


def test_an_image_beyond_the_table_of_positions_is_one_line(
    folder: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edit(folder, picture, tmp_path / "out", "dds", "--size", "72x32") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the image would be 72 x 32, this model reads at most 64 x 64; give --size" in error


def test_what_it_cannot_do_is_one_line(tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_tiny_sd3(tmp_path / "sd3", t5=False)
    assert edit(folder, picture, tmp_path / "out", "p2p") == 2
    assert "this model looks at both in one layer" in capsys.readouterr().err.strip().splitlines()[-1]
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_dynamic_shifting": True}))
    with pytest.raises(UserError, match="shifts levels by the size of the image"):
        load_backbone(str(folder), "cpu")
    fused = load_backbone(str(save_tiny_sd3(tmp_path / "plain", t5=False)), "cpu")
    fused.denoiser.fuse_qkv_projections()
    with pytest.raises(UserError, match=r"transformer_blocks\.1\.attn has fused projections"):
        fused.layout.layers("cross")


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"t5_width": 48}, "its transformer reads 40 text width of T5, it gets 48"),
        ({"t5": False, "joint": 24}, "its transformer reads 24 text width of CLIP, it gets 32"),
    ],
)
def test_text_of_another_width_is_refused_in_one_line(tmp_path: Path, widths: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_backbone(str(save_tiny_sd3(tmp_path, **widths)), "cpu")


def test_beside_a_denoiser_in_half_precision_t5_is_in_bf16_and_embeddings_are_in_float32(tmp_path: Path) -> None:
    folder = str(save_tiny_sd3(tmp_path))
    model, half = (load_backbone(folder, "cpu", dtype=dtype) for dtype in (torch.float32, torch.float16))
    assert [encoder.dtype for encoder in half.text.encoders] == [torch.float32, torch.float32, torch.bfloat16]
    assert (half.dtype, half.vae.dtype) == (torch.float16, torch.float32)
    ours, theirs = half.embed(["a cat"]).tokens, model.embed(["a cat"]).tokens
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)
    assert not torch.equal(ours, theirs)
