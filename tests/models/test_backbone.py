"""Loading pipelines of the real classes, and what the backbone does with latents, pixels and prompts."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import nn

from sdist.errors import UserError
from sdist.models.base import Backbone
from sdist.models.devices import choose_device
from sdist.models.loading import load_backbone

from ..conftest import make_draw


def test_encoding_is_the_scaled_mean_of_the_posterior(tiny: Backbone, tiny_v: Backbone) -> None:
    pixels = torch.rand(2, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        for backbone, shift in ((tiny, 0.0), (tiny_v, 0.1)):
            mean = backbone.vae.encode(pixels).latent_dist.mean
            z = backbone.encode(pixels)
            torch.testing.assert_close(z, (mean - shift) * 0.5)
            assert z.shape == (2, 4, 4, 6)
            decoded = backbone.vae.decode(mean).sample.clamp(-1, 1)
            torch.testing.assert_close(backbone.decode(z), decoded, rtol=1e-4, atol=1e-5)


def test_a_size_that_the_vae_does_not_divide_is_refused(tiny: Backbone) -> None:
    with pytest.raises(UserError, match="18 x 16; this model needs both sides divisible by 4"):
        tiny.encode(torch.zeros(1, 3, 16, 18))


@pytest.mark.parametrize(
    ("change", "use", "message"),
    [
        (
            lambda model: setattr(model.text.encoders[0].embeddings, "position_embedding", nn.Embedding(5, 16)),
            lambda model: model.embed(["a cat"]),
            "text encoders of StableDiffusion: .*Error",
        ),
        (
            lambda model: setattr(model.vae, "quant_conv", nn.Conv2d(3, 8, 1)),
            lambda model: model.encode(torch.zeros(1, 3, 16, 16)),
            "autoencoder of StableDiffusion: RuntimeError: .*channels",
        ),
        (
            lambda model: setattr(model.vae.decoder, "conv_in", nn.Conv2d(3, 8, 1)),
            lambda model: model.decode(torch.zeros(1, 4, 4, 4)),
            "autoencoder of StableDiffusion: .*Error",
        ),
    ],
)
def test_what_a_network_raises_is_one_line_that_names_it(tiny_folder: Path, change: Any, use: Any, message: str) -> None:
    model = load_backbone(str(tiny_folder), "cpu")
    change(model)
    with pytest.raises(UserError, match=message) as caught:
        use(model)
    assert "\n" not in str(caught.value)


def test_embeddings_are_those_of_the_diffusers_pipeline(tiny: Backbone, tiny_folder: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder)
    expected, null = pipeline.encode_prompt("a cat wearing a hat", "cpu", 1, True, negative_prompt="")
    ours = tiny.embed(["a cat wearing a hat", ""])
    torch.testing.assert_close(ours.tokens, torch.cat([expected, null]))
    assert ours.pooled is None


def test_a_velocity_prediction_is_converted(tiny_v: Backbone) -> None:
    draw = make_draw(tiny_v, 2, [100, 800], dtype=torch.float32)
    text = tiny_v.embed(["a cat", "a hat"])
    with torch.no_grad():
        v = tiny_v.denoiser(draw.noise, draw.t, encoder_hidden_states=text.tokens).sample
        estimate = tiny_v.estimate(draw.noise, draw.t, text)
    alpha, sigma = (x[:, None, None, None] for x in tiny_v.scales(draw.t, (8, 8)))
    torch.testing.assert_close(estimate.eps, alpha * v + sigma * draw.noise, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(estimate.clean, alpha * draw.noise - sigma * v, rtol=1e-4, atol=1e-5)


def test_noise_schedule_is_the_pipelines(tiny: Backbone, tiny_folder: Path) -> None:
    theirs = StableDiffusionPipeline.from_pretrained(tiny_folder).scheduler.alphas_cumprod
    alpha, sigma = tiny.scales(torch.arange(1000), (8, 8))
    torch.testing.assert_close(alpha**2, theirs)
    torch.testing.assert_close(sigma**2, 1 - theirs)
    assert tiny.last_timestep == 999


def test_networks_are_frozen(tiny: Backbone) -> None:
    for network in tiny.networks:
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())


def test_a_tokenizer_saved_as_vocabulary_and_merges_is_the_same(tiny: Backbone, tiny_folder: Path, tmp_path: Path) -> None:
    """The layout of Stable Diffusion on the hub, which has no tokenizer.json."""
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    whole = json.loads((model / "tokenizer" / "tokenizer.json").read_text())["model"]
    (model / "tokenizer" / "tokenizer.json").unlink()
    (model / "tokenizer" / "vocab.json").write_text(json.dumps(whole["vocab"]))
    merges = [" ".join(m) if isinstance(m, list) else m for m in whole["merges"]]
    (model / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    again = load_backbone(str(model), "cpu")
    prompt = "a cat, wearing a snowflake"
    assert again.text.token_ids(prompt) == tiny.text.token_ids(prompt)
    assert again.text.token_spans(prompt) == tiny.text.token_spans(prompt)


def test_other_prediction_types_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    path = model / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace('"epsilon"', '"sample"'))
    with pytest.raises(UserError, match=r"predicts 'sample'.*epsilon and v_prediction"):
        load_backbone(str(model), "cpu")


@pytest.mark.parametrize(
    ("part", "file"), [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")]
)
def test_a_part_that_lacks_weights_is_refused(tiny_folder: Path, tmp_path: Path, part: str, file: str) -> None:
    folder = tmp_path / "partial"
    shutil.copytree(tiny_folder, folder)
    path = folder / part / f"{file}.safetensors"
    weights = load_file(path)
    lost = sorted(weights)[0]
    save_file({name: value for name, value in weights.items() if name != lost}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"{part} lacks 1 weights of \w+, .*{lost.removeprefix('text_model.')}"):
        load_backbone(str(folder), "cpu")


def test_every_source_that_failed_is_named() -> None:
    with pytest.raises(UserError, match=r"'sd15' could not be loaded \(stable-diffusion-v1-5/.*benjamin-paine/.*tinyworld"):
        load_backbone("sd15", "cpu")


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "cuda:x"])
def test_devices_that_are_not_there(device: str) -> None:
    with pytest.raises(UserError, match=f"device '{device}' is not on this machine: have cpu"):
        choose_device(device)
