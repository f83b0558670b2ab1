"""The real architectures, with random weights and a fraction of their width; every method runs on each."""

import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image

from experiments import architectures
from experiments.architectures import UNETS, save_pipeline
from sdist.benchmark.measure import prepare_edits
from sdist.config.build import load_settings
from sdist.config.methods import shipped
from sdist.distillation.distiller import ScoreDistiller
from sdist.editors.loading import LoadedMethod
from sdist.edits.request import Request
from sdist.files.images import to_pixels
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone

from ..conftest import make_draw, run_to_end

METHODS = sorted(name for name in shipped("method") if load_settings(name).editor.stepwise)


@pytest.fixture(scope="session", params=list(UNETS))
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(str(save_pipeline(tmp_path_factory.mktemp(request.param), request.param)), "cpu")


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("sdxl"), "sdxl")


@pytest.fixture
def job(tmp_path: Path) -> Request:
    pixels = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return Request(tmp_path / "picture.png", "a cat", "a cat wearing a party hat")


@pytest.mark.parametrize("method", METHODS)
def test_two_steps_of_every_method(real: Backbone, job: Request, method: str) -> None:
    settings = load_settings(method, ["scale.threshold=0.0001"], steps=2, size="128x128")
    prepared = LoadedMethod(settings, real).prepare(job)
    edit = settings.editor.encode(real, [prepared])
    distiller = run_to_end(ScoreDistiller(real, edit, settings.editor.method(real), [(0, "x")]))
    assert edit.source.shape == (1, 4, 16, 16)
    assert distiller.latents.isfinite().all()
    assert not torch.equal(distiller.latents, edit.source)


@pytest.mark.parametrize("target", ["a dog", "a cat wearing a party hat"])
def test_two_steps_of_prompt_to_prompt(real: Backbone, job: Request, target: str) -> None:
    """Every layer that it steers is reached, and what is injected moves the edit."""
    edited = []
    for shares in ("editor.cross_replace=1", "editor.self_replace=1"), ("editor.cross_replace=0", "editor.self_replace=0"):
        method = LoadedMethod(load_settings("p2p", ["editor.steps=2", *shares], size="128x128"), real)
        with torch.no_grad():
            edited.append(method.editor.walk(real, [method.prepare(replace(job, target=target))]))
    assert all(z.shape == (1, 4, 16, 16) and z.isfinite().all() for z in edited)
    assert not torch.equal(*edited)


def test_two_steps_of_mutual_self_attention(real: Backbone, job: Request) -> None:
    edited = []
    for start in (0, 1):
        method = LoadedMethod(load_settings("masactrl", ["editor.steps=2", f"editor.start={start}"], size="128x128"), real)
        with torch.no_grad():
            edited.append(method.editor.walk(real, [method.prepare(job)]))
    assert all(z.isfinite().all() for z in edited)
    assert not torch.equal(*edited)


@pytest.mark.parametrize("method", ["vimaedit", "vimaedit_dpmpp"])
def test_two_steps_of_two_branches(real: Backbone, job: Request, method: str) -> None:
    """The levels that are looked at exist; where the mask is not, the image stays."""
    loaded = LoadedMethod(load_settings(method, ["editor.steps=2"], size="128x128"), real)
    with torch.no_grad():
        edited = loaded.editor.walk(real, [loaded.prepare(job)])
    source = loaded.model.encode(to_pixels([Image.open(job.image)]))
    same = ((edited - source).abs().amax(1) < 1e-4).float().mean()
    assert edited.isfinite().all()
    assert 0 < float(same) < 1


def test_the_levels_of_the_mask_exist(real: Backbone) -> None:
    """A quarter and a half of the latent's side, on all three."""
    for kind, level in (("cross", 2), ("self", 1)):
        assert level in {layer.level for layer in real.layout.layers(kind)}


def test_a_model_without_the_usual_level_gets_the_nearest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Attention at 1/1 and 1/2 of the latent's side alone: the mask reads both at 1/2, and says so."""
    pipeline = StableDiffusionPipeline.from_pretrained(save_pipeline(tmp_path / "model", "sd15"))
    blocks = {"down": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"), "up": ("UpBlock2D",)}
    pipeline.unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(40, 80, 160), cross_attention_dim=96, norm_num_groups=4, mid_block_type=None,
        down_block_types=blocks["down"], up_block_types=(*blocks["up"], "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    pipeline.save_pretrained(tmp_path / "model")
    backbone = load_backbone(str(tmp_path / "model"), "cpu")
    settings = load_settings("lusd", model=str(tmp_path / "model"))
    mask = settings.editor.method(backbone).regularizers["attention_mask"]
    assert (mask.cross_level, mask.self_level) == (1, 1)
    assert "cross_level: this model has none at 1/4 of the latent's side, 1/2 is used" in caplog.text


def test_velocity_is_read_from_the_pipeline(real: Backbone) -> None:
    assert real.prediction_type == ("v_prediction" if real.denoiser.config.sample_size == 96 else "epsilon")
    assert real.native_side == real.denoiser.config.sample_size * 8


def test_sdxl_predicts_what_its_own_pipeline_would(sdxl: Path) -> None:
    """Embeddings, pooled embeddings and sizes against those that diffusers computes."""
    backbone, pipeline = load_backbone(str(sdxl), "cpu"), StableDiffusionXLPipeline.from_pretrained(sdxl)
    prompts = ["a cat", "a cat wearing a hat"]
    tokens, _, pooled, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False)
    draw = make_draw(backbone, 2, [100, 800], shape=(4, 16, 24), dtype=torch.float32)
    ids = torch.tensor([[128.0, 192, 0, 0, 128, 192]]).expand(2, -1)
    more = {"text_embeds": pooled, "time_ids": ids}
    with torch.no_grad():
        theirs = pipeline.unet(draw.noise, draw.t, encoder_hidden_states=tokens, added_cond_kwargs=more).sample
        ours = backbone.estimate(draw.noise, draw.t, backbone.embed(prompts)).eps
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_sdxl_has_no_embedding_of_nothing(sdxl: Path) -> None:
    """It was trained with zeros for an empty prompt, which its pipeline's configuration says."""
    backbone = load_backbone(str(sdxl), "cpu")
    text = backbone.embed(["", "a cat"])
    assert [bool(part.any()) for part in (text.tokens[0], text.tokens[1], text.pooled[0], text.pooled[1])] == [False, True] * 2
    backbone.text.zero_empty = False
    assert backbone.embed([""]).tokens.any()


def test_an_edit_from_file_to_picture(sdxl: Path, job: Request) -> None:
    settings = load_settings("lusd", ["scale.threshold=0.0001"], model=str(sdxl), steps=2, size="128x192")
    backbone = load_backbone(str(sdxl), "cpu")
    result = LoadedMethod(settings, backbone).edit([LoadedMethod(settings, backbone).prepare(job)])[0]
    assert result.image.size == (128, 192)
    assert result.mask is not None
    assert result.prepared.words == ("party", "hat")


def test_the_command_for_the_benchmark_lets_about_a_quarter_of_the_draws_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(tmp_path / "sd15"), "--heads", "1", "--device", "cpu", "--set", "size=128x128"]
    monkeypatch.setattr(sys, "argv", ["architectures.py", *words])
    assert architectures.main() == 0
    command = capsys.readouterr().out.strip().splitlines()[-1]
    assert command.startswith(f"sdist bench --model {tmp_path / 'sd15'} --device cpu --set ")
    settings = load_settings("lusd", command.split("--set ")[1].split(), model=str(tmp_path / "sd15"), steps=2)
    backbone = load_backbone(settings.model, "cpu")
    assert backbone.denoiser.config.attention_head_dim == 1
    results = LoadedMethod(settings, backbone).edit(prepare_edits(tmp_path, LoadedMethod(settings, backbone), 4))
    assert 0.15 < 8 / sum(sum(result.attempts) for result in results) < 0.4


@pytest.mark.full_width
@pytest.mark.parametrize("name", list(UNETS))
def test_one_step_at_full_width(name: str, job: Request, tmp_path: Path) -> None:
    """python -m pytest -m full_width -s    (SD 1.5 needs 8 GB of memory, SDXL 24 GB)"""
    backbone = load_backbone(str(save_pipeline(tmp_path / name, name, narrow=1)), "cpu")
    settings = load_settings("lusd", ["filter=null"], steps=1)
    start = time.perf_counter()
    result = LoadedMethod(settings, backbone).edit([LoadedMethod(settings, backbone).prepare(job)])[0]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{name}: {time.perf_counter() - start:.1f} s, of which {result.timings}; peak memory {memory:.1f} GiB")
    assert result.image.size == (backbone.native_side,) * 2
