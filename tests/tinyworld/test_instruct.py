"""tinyworld-instruct, the instruction editor that the package carries, and tinyworld's IP-Adapter."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.editors.loading import LoadedMethod
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.image_guidance.catalogue import AUTO, find_adapter
from sdist.models.base import Backbone
from sdist.models.catalogue import MODELS, TINYWORLD, find_model
from sdist.models.loading import load_backbone
from sdist.models.vocabulary import word_list
from sdist.tinyworld.captions import vocabulary
from sdist.tinyworld.instructions import WORDS
from sdist.tinyworld.judge import look

ROOT = Path(__file__).parent.parent.parent
INSTRUCT = TINYWORLD / "instruct"


@pytest.fixture(scope="module")
def instruct() -> Backbone:
    return load_backbone("tinyworld-instruct", "cpu", conditions=1)


def test_its_autoencoder_is_tinyworlds(instruct: Backbone) -> None:
    assert not (INSTRUCT / "vae").exists()
    assert instruct.denoiser.config.in_channels == 8
    assert find_model(str(INSTRUCT)).shared_parts == MODELS["tinyworld-instruct"].shared_parts == {"vae": "vae"}


def test_it_knows_the_words_of_instructions(instruct: Backbone) -> None:
    path = word_list(instruct)
    assert path is not None
    assert path.read_text().split() == sorted({*vocabulary(), *WORDS})
    spans = instruct.text.token_spans("replace the red balloon with a snowman")
    assert sum(start < end for start, end in spans) == 7


def test_the_new_weights_are_small() -> None:
    sizes = {path: path.stat().st_size for path in TINYWORLD.rglob("*.safetensors")}
    assert sum(size for path, size in sizes.items() if INSTRUCT in path.parents) <= 14e6
    added = [size for path, size in sizes.items() if {"flow", "instruct", "adapter.safetensors"} & set(path.parts)]
    assert sum(added) <= 22e6


def test_prompts_that_are_not_read_need_no_known_word(instruct: Backbone) -> None:
    method = LoadedMethod(load_settings("lime"), instruct)
    request = Request(ROOT / "assets/demo.png", "xyz", "qwv", instruction="put a red balloon in the sky")
    assert method.prepare(request).words
    with pytest.raises(UserError, match="knows no word of the prompt 'qwv'"):
        method.check(replace(request, instruction=""))


def test_lime_follows_an_instruction_and_replays(tmp_path: Path) -> None:
    command = ["edit", str(ROOT / "assets/demo.png"), "--instruction", "put a red balloon in the sky"]
    command += ["--model", "tinyworld-instruct", "--method", "lime", "--output", str(tmp_path), "--quiet"]
    command += ["--steps", "12"]
    assert main(command) == 0
    (path,) = tmp_path.glob("demo_*_seed0.json")
    assert json.loads(path.read_text())["settings"]["model"] == "tinyworld-instruct"
    (seen,) = look([Image.open(path.with_suffix(".png"))])
    assert ("balloon", "red") in seen.pairs
    assert main(["replay", str(path.with_suffix(".png")), "--quiet"]) == 0


def test_tinyworld_has_an_adapter() -> None:
    source = find_adapter(AUTO, "tinyworld")
    assert source is not None
    weights = load_file(Path(source.places[0]) / source.file)
    assert {name.split(".")[0] for name in weights} == {"image_proj", "ip_adapter"}
    assert weights["image_proj.proj.weight"].shape == (4 * 128, 128)
