"""Fixtures: a tiny pipeline of the real classes saved to disk, and an analytic predictor whose answer is known."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # networks here are so small that threads would mostly wait for each other
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sdist.diffusion import Estimate, discrete_scales
from sdist.distillation.distiller import ScoreDistiller
from sdist.draws import DrawKey, RandomSampler
from sdist.editors.loading import LoadedMethod
from sdist.edits.request import Request
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.prediction import Branch, Draw, Edit, Progress, Text

WORDS = ("cat", "hat", "party", "dog", "red", "house", "a", "in", "wearing", "and", "the", "snow")


def tiny_tokenizer(limit: int = 24) -> CLIPTokenizer:
    """Whole words for WORDS, letters for the rest, `limit` tokens at most."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in (w for w in WORDS if len(w) > 1):
        pieces = [*word[:-1], word[-1] + "</w>"]
        for i in range(1, len(pieces)):
            merges.append(("".join(pieces[:i]), pieces[i]))
    tokens = [*letters, *(x + "</w>" for x in letters), *("".join(m) for m in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=list(dict.fromkeys(merges)), model_max_length=limit)


def tiny_text_config(tokenizer: CLIPTokenizer, layers: int) -> CLIPTextConfig:
    """Of a text encoder for that tokenizer."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=2,
        max_position_embeddings=24, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


CROSS = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")


def save_tiny_pipeline(
    folder: Path,
    prediction_type: str = "epsilon",
    shift: float | None = None,
    in_channels: int = 4,
    down: tuple[str, ...] = CROSS,
) -> Path:
    """Random weights in Stable Diffusion's block layout: native 32 pixels, 4 a latent, three levels."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    text = tiny_text_config(tokenizer, layers=1)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(4, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1, norm_num_groups=2, latent_channels=4, scaling_factor=0.5, shift_factor=shift,
        ),
        unet=UNet2DConditionModel(
            sample_size=8, in_channels=in_channels, block_out_channels=(8, 8, 16), layers_per_block=1, norm_num_groups=4,
            attention_head_dim=2, cross_attention_dim=16, down_block_types=down,
            up_block_types=tuple(kind.replace("Down", "Up") for kind in reversed(down)),
        ),
        text_encoder=CLIPTextModel(text), tokenizer=tokenizer,
        scheduler=DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type, clip_sample=False
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    with torch.no_grad():  # fresh text embeddings are so small that prompts would hardly differ
        pipeline.text_encoder.get_input_embeddings().weight.normal_()
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Backbone:
    return load_backbone(str(tiny_folder), "cpu")


@pytest.fixture(scope="session")
def tiny_v(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = save_tiny_pipeline(tmp_path_factory.mktemp("tiny_v"), "v_prediction", shift=0.1)
    return load_backbone(str(folder), "cpu")


@pytest.fixture
def unchecked() -> Iterator[None]:
    """For arguments that the annotations forbid and that the code itself must refuse."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A 32 x 32 picture that is not flat."""
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path


class Gaussian:
    """If data for a prompt is N(mu, s^2 I), the noise prediction is sigma (z_t - alpha mu) / (alpha^2 s^2 + sigma^2).

    mu is the only number of a prompt's only token.
    """

    guidance, last_timestep = "cfg", 999

    def __init__(self, s: float = 0.5) -> None:
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.alphas_cumprod, self.s = torch.cumprod(1 - betas, 0), s

    def scales(self, t: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        return discrete_scales(self.alphas_cumprod, t)

    def estimate(self, z_t: torch.Tensor, t: torch.Tensor, text: Text, guidance: None = None) -> Estimate:
        alpha, sigma = (x[:, None, None, None] for x in self.scales(t, (1, 1)))
        mu = text.tokens[:, :1, :1, None]
        eps = sigma * (z_t - alpha * mu) / (alpha**2 * self.s**2 + sigma**2)
        return Estimate(eps, z_t, *self.scales(t, (1, 1)), "epsilon")


MEANS = {"target": 2.0, "source": -1.0, "null": 0.25, "negative": -0.5}


@pytest.fixture
def gaussian() -> Gaussian:
    return Gaussian()


def gaussian_edit(b: int = 1, **means: float) -> Edit:
    """An edit in float64 whose prompts have these means."""
    values = {**MEANS, **means}
    text = {k: Text(torch.full((b, 1, 1), v, dtype=torch.float64)) for k, v in values.items()}
    z = torch.randn(b, 4, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return Edit(z, text, torch.zeros(b, 1))


def make_draw(
    network, b: int, t: int | list[int], seed: int = 0, shape: tuple[int, ...] = (4, 8, 8), dtype=torch.float64
) -> Draw:
    times = torch.tensor([t] * b if isinstance(t, int) else t)
    noise = torch.randn(b, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    alpha, sigma = (x.to(dtype) for x in network.scales(times, (1, 1)))
    keys = tuple(DrawKey(seed, str(i), 0, 0) for i in range(b))
    return Draw(times, noise, alpha, sigma, torch.ones_like(alpha), torch.zeros_like(sigma), keys, RandomSampler())


def progress(b: int, step: int = 0, steps: int = 10) -> Progress:
    return Progress(torch.arange(b), torch.full((b,), step), steps)


def tiny_edit(backbone: Backbone, b: int = 1, h: int = 8, w: int = 8) -> Edit:
    """Random latents and the prompts 'a cat' -> 'a cat wearing a hat', focus on hat."""
    z = torch.randn(b, 4, h, w, generator=torch.Generator().manual_seed(5))
    prompts = {"target": "a cat wearing a hat", "source": "a cat", "null": "", "negative": "snow"}
    text = {name: backbone.embed([prompt] * b) for name, prompt in prompts.items()}
    focus = torch.zeros(b, 24)
    focus[:, 5] = 1
    return Edit(z, text, focus)


def branches_of(edit: Edit) -> list[Branch]:
    return [Branch(latent, prompt) for latent in ("edit", "source") for prompt in edit.text]


def walk_together(loaded: LoadedMethod, requests: Sequence[Request]) -> torch.Tensor:
    """The edited latents of requests, all at once, by an editor that walks noisy latents."""
    with torch.no_grad():
        return loaded.editor.walk(loaded.model, [loaded.prepare(request) for request in requests])


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def run_to_end(distiller: ScoreDistiller) -> ScoreDistiller:
    """The plain loop that the trainer runs."""
    optimizer = distiller.configure_optimizers()
    while not distiller.finished:
        optimizer.zero_grad()
        distiller.training_step(None, 0).backward()
        optimizer.step()
    return distiller
