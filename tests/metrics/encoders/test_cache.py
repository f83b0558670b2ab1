"""Embeddings are made once, on disk too."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from sdist.metrics.encoders.clip import Clip
from sdist.metrics.encoders.dino import Dino

from ..samples import PROFILES, noise_image


def test_cached_embeddings_are_read_again_and_damaged_ones_made_again(
    clip_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = [noise_image(seed) for seed in range(3)]
    clip = Clip(str(clip_folder), "cpu", tmp_path)
    first = clip.images([*images, images[0]], "clean")
    files = sorted(tmp_path.rglob("*"))
    assert len([f for f in files if f.suffix == ".safetensors"]) == 3
    assert not [f for f in files if f.name.startswith(".")]
    again = Clip(str(clip_folder), "cpu", tmp_path)
    again.model = None  # nothing is left to compute
    assert torch.equal(again.images([*images, images[0]], "clean"), first)
    next(f for f in files if f.suffix == ".safetensors").write_bytes(b"damaged")
    mended = Clip(str(clip_folder), "cpu", tmp_path)
    torch.testing.assert_close(mended.images([*images, images[0]], "clean"), first, rtol=0, atol=1e-6)
    assert "is made again" in caplog.text


def test_embeddings_are_made_once_without_a_folder_too(clip_folder: Path) -> None:
    clip, image = Clip(str(clip_folder), "cpu"), noise_image(0)
    first = clip.images([image], "clean"), clip.texts(["a cat"])
    clip.model.forward = clip.model.get_image_features = clip.model.get_text_features = None  # nothing may be computed
    assert torch.equal(clip.images([image, image], "clean"), first[0].repeat(2, 1))
    assert torch.equal(clip.texts(["a cat"]), first[1])


def test_caches_tell_contents_profiles_and_models_apart(clip_folder: Path, dino_folder: Path, tmp_path: Path) -> None:
    clip, dino = Clip(str(clip_folder), "cpu", tmp_path), Dino(str(dino_folder), "cpu", tmp_path)
    image = noise_image(0, 40, 20)
    for turned in (image, image.transpose(Image.Transpose.ROTATE_90), Image.new("RGB", (20, 40))):
        for profile in PROFILES:
            clip.images([turned], profile)
            dino.images([turned], profile)
    clip.texts(["a cat", "a dog", "a cat"])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 14
