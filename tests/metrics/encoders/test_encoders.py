"""CLIP and DINO, of the real classes with random weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import ViTModel

from sdist.errors import UserError
from sdist.metrics.encoders.clip import Clip
from sdist.metrics.encoders.dino import Dino
from sdist.metrics.encoders.preprocessing import clip_pixels, dino_pixels, structure_pixels

from ...conftest import read_json
from ..samples import SIDE, noise_image


def test_embeddings_are_those_of_the_model(clip: Clip) -> None:
    image = noise_image(0, 40, 50)
    with torch.no_grad():
        both = clip.model(
            pixel_values=clip_pixels(image, SIDE, "clean")[None], **clip.tokenizer(["a red cat"], return_tensors="pt")
        )
    for ours, theirs in ((clip.images([image], "clean"), both.image_embeds), (clip.texts(["a red cat"]), both.text_embeds)):
        torch.testing.assert_close(torch.nn.functional.normalize(ours, dim=-1), theirs, rtol=0, atol=1e-5)


def test_dino_embeddings_are_class_tokens(dino: Dino) -> None:
    image = noise_image(0, 40, 50)
    with torch.no_grad():
        tokens = dino.model(dino_pixels(image, SIDE, "clean")[None]).last_hidden_state[0]
    torch.testing.assert_close(dino.images([image], "clean")[0], tokens[0], rtol=0, atol=1e-6)
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3


def test_batches_and_repetitions_do_not_change_embeddings(clip: Clip, dino: Dino) -> None:
    images = [noise_image(seed % 40, 40, 50) for seed in range(45)]
    for encoder in (clip, dino):
        together = encoder.images(images, "clean")
        torch.testing.assert_close(together[[0, 35]], encoder.images([images[0], images[35]], "clean"), rtol=0, atol=1e-5)
        assert torch.equal(together[:5], together[40:])


def test_texts_beyond_the_limit_are_errors_or_cut(clip: Clip) -> None:
    long = "cat " * 30
    with pytest.raises(UserError, match="description has 32 tokens, this CLIP reads 24"):
        clip.texts(["a cat", long])
    torch.testing.assert_close(clip.texts([long], cut=True), clip.texts([("cat " * 22).strip()]), rtol=0, atol=1e-6)


def test_keys_are_what_the_last_layer_projects(dino: Dino) -> None:
    seen: list[torch.Tensor] = []
    handle = dino.model.layers[-1].attention.k_proj.register_forward_hook(lambda module, given, out: seen.append(out))
    image = noise_image(3, 64, 64)
    with torch.no_grad():
        dino.model(structure_pixels(image, SIDE, "clean")[None])
    handle.remove()
    torch.testing.assert_close(dino.keys([image], "clean"), seen[0], rtol=0, atol=1e-6)
    assert dino.keys([image], "clean").shape == (1, 17, 16)


def test_models_that_cannot_be_loaded_are_named(tmp_path: Path, dino_folder: Path, clip_folder: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere cannot be loaded as CLIPModel"):
        Clip(str(tmp_path / "nowhere"), "cpu")
    shutil.copytree(clip_folder, tmp_path / "silent")
    (tmp_path / "silent" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"silent cannot be loaded as CLIPTokenizer .* it has no tokenizer.json"):
        Clip(str(tmp_path / "silent"), "cpu")
    shutil.copytree(clip_folder, tmp_path / "other")
    config = read_json(tmp_path / "other" / "config.json")
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"projection_dim": 7}))
    with pytest.raises(UserError, match=r"other: \w+_projection.weight has the shape .*, CLIPModel has \(7, \d+\) there"):
        Clip(str(tmp_path / "other"), "cpu")
    with pytest.raises(UserError, match="ViTModel"):
        Dino(str(clip_folder), "cpu")
    torch.save(ViTModel.from_pretrained(dino_folder, add_pooling_layer=False).state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((dino_folder / "config.json").read_bytes())
    with pytest.raises(UserError, match="with safetensors"):
        Dino(str(tmp_path), "cpu")
