"""tinyworld-flow, the flow transformer that the package carries."""

import json
from pathlib import Path

import pytest
import torch

from sdist.cli import main
from sdist.models.base import Backbone
from sdist.models.catalogue import MODELS, TINYWORLD, find_model
from sdist.models.loading import load_backbone
from sdist.models.stable_diffusion_3 import StableDiffusion3

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def flow() -> Backbone:
    return load_backbone("tinyworld-flow", "cpu")


def test_it_has_its_autoencoder_and_tokenizers_from_tinyworld(flow: Backbone) -> None:
    assert isinstance(flow, StableDiffusion3)
    assert (flow.native_side, flow.channels, flow.text.length) == (128, 4, 77 + 256)
    parts = {path.name for path in (TINYWORLD / "flow").iterdir()}
    assert not {"vae", "tokenizer", "tokenizer_2"} & parts
    image = torch.rand(1, 3, 128, 128) * 2 - 1
    torch.testing.assert_close(flow.encode(image), load_backbone("tinyworld", "cpu").encode(image))


def test_its_folder_is_the_same_model() -> None:
    assert find_model(str(TINYWORLD / "flow")).shared_parts == MODELS["tinyworld-flow"].shared_parts
    assert load_backbone(str(TINYWORLD / "flow"), "cpu").fingerprint == load_backbone("tinyworld-flow", "cpu").fingerprint


def test_the_new_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in (TINYWORLD / "flow").rglob("*.safetensors")) <= 11_000_000


def test_flowedit_edits_with_it_and_replays(tmp_path: Path) -> None:
    command = ["edit", str(ROOT / "assets/demo.png"), "--source", "a field of snow", "--target", "a red balloon in the snow"]
    command += ["--model", "tinyworld-flow", "--method", "flowedit", "--steps", "6", "--output", str(tmp_path), "--quiet"]
    assert main(command) == 0
    (path,) = tmp_path.glob("demo_*_seed0.json")
    settings = json.loads(path.read_text())["settings"]
    assert (settings["model"], settings["steps"]) == ("tinyworld-flow", 6)
    assert main(["replay", str(path.with_suffix(".png")), "--quiet"]) == 0
