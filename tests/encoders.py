"""Networks of the real classes with random weights, for metrics: fixtures to import where they are used."""

from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, ViTConfig, ViTModel

from sdist.metrics.encoders.clip import Clip
from sdist.metrics.encoders.dino import Dino
from sdist.metrics.encoders.lpips import Lpips

from .conftest import tiny_text_config, tiny_tokenizer

SIDE = 32  # pixels that they read


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder, tokenizer = tmp_path_factory.mktemp("clip"), tiny_tokenizer()
    text = tiny_text_config(tokenizer, layers=2)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=8
    )
    CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("dino")
    config = ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=8
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip(clip_folder: Path) -> Clip:
    return Clip(str(clip_folder), "cpu")


@pytest.fixture(scope="session")
def dino(dino_folder: Path) -> Dino:
    return Dino(str(dino_folder), "cpu")


@pytest.fixture(scope="session")
def lpips() -> Lpips:
    torch.manual_seed(2)
    model = Lpips().eval().requires_grad_(False)
    for weight in model.weights.parameters():
        weight.abs_()
    return model
