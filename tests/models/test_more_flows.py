"""Chroma, FLUX.2, Qwen-Image, Z-Image: prompts and Euler steps of diffusers' own pipelines, the six answers, editors."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from sdist import ScoreDistillationPipeline, edit
from sdist.cli import main
from sdist.errors import UserError
from sdist.hooks.attach import record
from sdist.hooks.attention import Attention
from sdist.models.base import Backbone
from sdist.models.chroma import ChromaLayout
from sdist.models.flux2 import Flux2
from sdist.models.loading import load_backbone
from sdist.models.packing import pack, places, unpack
from sdist.prediction import TARGET, call

from .test_stable_diffusion_3 import t5_tokenizer

SIZE = (6, 8)  # latents that are not square, so that swapped positions or sides show
PROMPTS = ["a cat", "a dog wearing a hat", ""]


def tiny_vae(channels: int = 4, **changed: Any) -> AutoencoderKL:
    """Four pixels per latent."""
    return AutoencoderKL(
        block_out_channels=(4, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1, norm_num_groups=2, latent_channels=channels, scaling_factor=0.5, shift_factor=0.1, sample_size=32,
        use_quant_conv=False, use_post_quant_conv=False, **changed,
    )  # fmt: skip


def chroma() -> DiffusionPipeline:
    t5 = T5Config(vocab_size=len(t5_tokenizer()), d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return ChromaPipeline(
        transformer=ChromaTransformer2DModel(
            in_channels=16, num_layers=2, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=24, axes_dims_rope=(2, 2, 4), approximator_num_channels=8, approximator_hidden_dim=16,
            approximator_layers=1,
        ),
        vae=tiny_vae(), text_encoder=T5EncoderModel(t5), tokenizer=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )  # fmt: skip


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Letters, and a template of chats."""
    letters = sorted(ByteLevel.alphabet())
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Qwen2Tokenizer(vocab={token: i for i, token in enumerate([*letters, *marks])}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": marks[1:]})
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
        "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    )
    return tokenizer


def qwen3(layers: int = 2) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip


def z_image() -> DiffusionPipeline:
    return ZImagePipeline(
        transformer=ZImageTransformer2DModel(
            in_channels=4, dim=16, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16, axes_dims=[2, 2, 4],
            axes_lens=[1024, 64, 64],
        ),
        vae=tiny_vae(), text_encoder=Qwen3Model(qwen3()), tokenizer=qwen_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


def z_image_text(pipeline: Any, prompts: list[str]) -> list[torch.Tensor]:
    return pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False)[0]


def flux2() -> DiffusionPipeline:
    vae = AutoencoderKLFlux2(
        block_out_channels=(4, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1, norm_num_groups=2, latent_channels=2, sample_size=32,
    )  # fmt: skip
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2)
    return Flux2KleinPipeline(
        transformer=Flux2Transformer2DModel(
            in_channels=8, num_layers=2, num_single_layers=1, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=48,
            timestep_guidance_channels=8, axes_dims_rope=(2, 2, 2, 2), guidance_embeds=False,
        ),
        vae=vae, text_encoder=Qwen3ForCausalLM(qwen3(28)), tokenizer=qwen_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )  # fmt: skip


def flux2_text(pipeline: Any, prompts: list[str]) -> list[torch.Tensor]:
    return pipeline.encode_prompt(prompts)[0]


def qwen_image() -> DiffusionPipeline:
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "num_key_value_heads": 2, "vocab_size": 300, "rope_parameters": {**rope, "rope_theta": 1e6}}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    return QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16,
            axes_dims_rope=(2, 2, 4),
        ),
        vae=AutoencoderKLQwenImage(
            base_dim=4, z_dim=4, dim_mult=[1, 2, 4], num_res_blocks=1, temperal_downsample=[False, True],
            latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.5, 2.0, 1.0],
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)),
        tokenizer=qwen_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02, max_shift=0.9),
    )  # fmt: skip


def qwen_image_text(pipeline: Any, prompts: list[str]) -> list[torch.Tensor]:
    return [pipeline.encode_prompt(prompt)[0][0] for prompt in prompts]


def chroma_text(pipeline: Any, prompts: list[str]) -> list[torch.Tensor]:
    tokens, _, mask, *_ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False)
    return [row[read.bool()] for row, read in zip(tokens, mask, strict=True)]


BUILDERS: dict[str, Callable[[], DiffusionPipeline]] = {
    "chroma": chroma,
    "z_image": z_image,
    "flux2": flux2,
    "qwen_image": qwen_image,
}
TEXTS: dict[str, Callable[[Any, list[str]], Any]] = {  # what transformers read of each prompt
    "chroma": chroma_text,
    "z_image": z_image_text,
    "flux2": flux2_text,
    "qwen_image": qwen_image_text,
}
PACKED = {"chroma", "qwen_image"}  # pipelines whose latents are sequences
RAW = {"flux2"}  # pipelines whose latents leave in the scaling of the autoencoder
GUIDANCE: dict[str, dict[str, float]] = {"z_image": {"guidance_scale": 2.0}, "qwen_image": {}}  # where scale 3 is not theirs


@pytest.fixture(scope="module", params=BUILDERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("flows") / request.param
    BUILDERS[request.param]().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Backbone:
    return load_backbone(str(folder), "cpu")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def noise(model: Backbone, b: int = 1) -> torch.Tensor:
    return torch.randn(b, model.channels, *SIZE, generator=torch.Generator().manual_seed(1))


def test_prompts_are_those_of_the_pipeline(folder: Path, model: Backbone, pipeline: Any) -> None:
    theirs, text = TEXTS[folder.name](pipeline, PROMPTS), model.embed(PROMPTS)
    for i, expected in enumerate(theirs):
        row = text.tokens[i] if text.mask is None else text.tokens[i][text.mask[i]]
        torch.testing.assert_close(row, expected, rtol=0, atol=5e-5)
    assert text.tokens.shape[1] == model.text.length


def test_tokens_know_their_characters(model: Backbone) -> None:
    """Whatever a template adds around the prompt."""
    prompt = "a dog wearing a hat"
    spans = model.text.token_spans(prompt)
    assert len(spans) == model.text.length
    assert {place for span in spans for place in range(*span)} >= {i for i, letter in enumerate(prompt) if letter != " "}
    assert max(end for _, end in spans) == len(prompt)


def test_euler_steps_are_those_of_the_pipeline(folder: Path, model: Backbone, pipeline: Any, monkeypatch: Any) -> None:
    """So sign, time, packing, positions and guidance are its own: three steps, guided where theirs is ours."""
    z = noise(model)
    if folder.name == "chroma":  # which masks nothing with its floats, see sdist/models/chroma.py
        prepare = type(pipeline)._prepare_attention_mask
        monkeypatch.setattr(pipeline, "_prepare_attention_mask", lambda *a, **k: prepare(pipeline, *a, **k).bool(), raising=False)
    given = pack(z) if folder.name in PACKED else z
    theirs = pipeline(
        prompt="a cat", latents=given, num_inference_steps=3, **(options := GUIDANCE.get(folder.name, {"guidance_scale": 3.0})),
        height=SIZE[0] * model.factor, width=SIZE[1] * model.factor, output_type="latent",
    )[0]  # fmt: skip
    text, guided = {"target": model.embed(["a cat"]), "null": model.embed([""])}, TARGET.guided(3.0) if options else TARGET
    sigmas = pipeline.scheduler.sigmas.double().tolist()
    for s, following in pairwise(sigmas):
        t = torch.tensor([model.timestep(s, SIZE)])
        z = z + (following - s) * call(model, {"edit": z}, t, text, (guided,)).velocity[guided]
    if folder.name in PACKED:
        theirs = unpack(theirs, SIZE)
    elif folder.name in RAW:
        theirs = model.from_vae(theirs)
    torch.testing.assert_close(z, theirs, rtol=0, atol=2e-5)


def test_clean_and_noise_make_up_the_noisy_latents_at_every_level(model: Backbone) -> None:
    t, z_t = torch.tensor([0, 1, 500, 1000]), noise(model, 4)
    estimate = model.estimate(z_t, t, model.embed(["a cat"]).repeat(4))
    a, g = (x[:, None, None, None] for x in model.scales(t, SIZE))
    torch.testing.assert_close(a * estimate.clean + g * estimate.eps, z_t, rtol=0, atol=1e-5)
    torch.testing.assert_close(estimate.eps - estimate.clean, estimate.velocity, rtol=0, atol=1e-5)


def test_a_row_does_not_depend_on_those_beside_it(model: Backbone) -> None:
    """Prompts have their own lengths, and rows their own levels."""
    z_t, t, text = noise(model, 3), torch.tensor([900, 500, 100]), model.embed(PROMPTS)
    together = model.estimate(z_t, t, text).velocity
    for i in range(3):
        alone = model.estimate(z_t[i : i + 1], t[i : i + 1], text[i : i + 1]).velocity
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)


def test_images_go_through_the_autoencoder_in_the_pipelines_scaling(model: Backbone, pipeline: Any) -> None:
    pixels = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    mean = model.posterior(pixels).mean
    torch.testing.assert_close(model.encode(pixels), model.from_vae(mean))
    torch.testing.assert_close(model.to_vae(model.from_vae(mean)), mean, rtol=0, atol=1e-6)


def test_the_pipeline_class_edits_with_its_components(folder: Path, pipeline: DiffusionPipeline, picture: Path) -> None:
    expected = edit(picture, "a cat", "a dog", model=str(folder), method="dds", steps=1, settings=["size=32x32"]).image
    for pipe in (ScoreDistillationPipeline.from_pretrained(folder), ScoreDistillationPipeline.from_pipe(pipeline)):
        out = pipe("a dog", picture, "a cat", method="dds", num_inference_steps=1, height=32, width=32)
        assert out.images[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize("method", ["lusd_difference", "dds", "flowedit"])
def test_editors_edit_with_it(folder: Path, picture: Path, tmp_path: Path, method: str) -> None:
    command = ["edit", str(picture), "--source", "a cat", "--target", "a cat wearing a hat", "--model", str(folder)]
    options = ["--steps", "2", "--quiet", "--set", "size=32x32", "scale.threshold=0.0001"]
    assert main([*command, "--method", method, "--output", str(tmp_path / "out.png"), *options]) == 0
    if method == "dds":
        assert main(["replay", str(tmp_path / "out.png"), "--quiet"]) == 0


@pytest.mark.parametrize("method", ["lusd", "cds"])
def test_what_reads_attention_is_refused_in_one_line_but_with_chroma(
    folder: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    command = ["edit", str(picture), "--source", "a cat", "--target", "a dog", "--model", str(folder), "--steps", "1"]
    options = ["--quiet", "--set", "size=32x32", "scale.threshold=0.0001"]
    code = main([*command, "--method", method, "--output", str(tmp_path / "out"), *options])
    if folder.name == "chroma":
        assert code == 0
        return
    assert code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "cannot be read here, which this method needs" in last
    assert "lusd_difference" in last


@pytest.mark.parametrize("block", ["transformer_blocks.1.attn", "single_transformer_blocks.0.attn"])
def test_maps_of_chroma_are_those_of_explicit_joint_attention_under_its_mask(tmp_path: Path, block: str) -> None:
    """Every token of the text in turn: those that are masked have no attention, and take none from others."""
    chroma().save_pretrained(tmp_path)
    model = load_backbone(str(tmp_path), "cpu")
    layer, text, parts = ChromaLayout(model.denoiser).layer(block), model.embed(["a cat"]), {}
    names = ["norm_added_q", "norm_added_k"] if block.startswith("transformer") else []
    reads = [name for kind in ("cross", "self") for name in model.layout.reads(kind, layer)]
    with torch.no_grad(), record(model, [*reads, *(f"{block}.{name}" for name in names)], slice(0, 1)) as tape:
        model.estimate(noise(model), torch.tensor([600]), text)
        cross, own = ({layer: model.layout.queries_and_keys(kind, layer, tape.__getitem__)} for kind in ("cross", "self"))
        for side in "qk":
            found = [tape[f"{block}.{name}{side}"] for name in ("norm_added_", "norm_") if f"{block}.{name}{side}" in tape.values]
            parts[side] = apply_rotary_emb(torch.cat(found, 1), tape["pos_embed"], sequence_dim=1)
    logits = torch.einsum("nqhd,nkhd->hqk", parts["q"], parts["k"]) * 8**-0.5
    count, mask = text.tokens.shape[1], torch.cat([text.mask[0], torch.ones(12, dtype=torch.bool)])
    explicit = logits.masked_fill(~mask, -math.inf).softmax(-1)[:, count:].mean(0)
    attention = Attention(cross, own, SIZE)
    for token in range(8):
        focus = torch.eye(count)[token][None]
        torch.testing.assert_close(attention.cross_map(focus).flatten(), explicit[:, token], rtol=0, atol=1e-6)
    assert 0 < text.mask.sum() < 8
    image = logits[:, count:, count:].softmax(-1).mean(0)
    torch.testing.assert_close(attention.spread()(explicit[:, :1])[0], image @ explicit[:, :1], rtol=0, atol=1e-6)


def test_packing_is_undone_by_unpacking_and_places_go_by_rows() -> None:
    z = torch.arange(2 * 4 * 6 * 8.0).reshape(2, 4, 6, 8)
    assert torch.equal(unpack(pack(z), SIZE), z)
    assert torch.equal(pack(z)[0, 1, :4], z[0, 0, :2, 2:4].flatten())
    assert places(SIZE, z)[5].tolist() == [0, 1, 1]


@pytest.mark.parametrize("tokens", [256, 4096, 4400])
def test_levels_of_flux2_are_shifted_as_for_fifty_steps(tokens: int) -> None:
    flux2 = object.__new__(Flux2)
    flux2.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    assert flux2.shift((1, tokens)) == pytest.approx(math.exp(compute_empirical_mu(tokens, 50)))


def test_an_editor_by_instruction_is_refused_in_one_line(tmp_path: Path) -> None:
    qwen_image().save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace("QwenImagePipeline", "QwenImageEditPipeline"))
    with pytest.raises(UserError, match="a QwenImageEditPipeline reads an instruction and the image"):
        load_backbone(str(tmp_path), "cpu")
