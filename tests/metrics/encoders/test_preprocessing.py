"""What encoders read."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from sdist.metrics.encoders.preprocessing import center_crop, clip_pixels, dino_pixels, resize_short, structure_pixels

from ..samples import PROFILES, SIDE, noise_image


@pytest.mark.parametrize("size", [(64, 64), (300, 400), (300, 401), (500, 334), (427, 640), (32, 33), (20, 20)])
def test_clip_input_is_that_of_transformers(size: tuple[int, int]) -> None:
    image = noise_image(0, *size)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    theirs = torch.as_tensor(np.array(processor(image).pixel_values[0]))
    torch.testing.assert_close(clip_pixels(image, 224, "clean"), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("margin", "official", "clean"), [(0, 0, 0), (1, 0, 0), (2, 1, 1), (3, 2, 1), (5, 2, 2), (75, 38, 37)])
def test_only_crops_round_differently(margin: int, official: int, clean: int) -> None:
    columns = np.arange(224 + margin) % 256
    image = Image.fromarray(np.tile(columns.astype(np.uint8), (224, 1)))
    for profile, left in (("official", official), ("clean", clean)):
        assert center_crop(image, 224, profile).getpixel((0, 0)) == left


def test_sizes() -> None:
    assert resize_short(noise_image(0, 333, 500), 224).size == (224, 336)
    assert resize_short(noise_image(0, 500, 333), 224).size == (336, 224)
    assert structure_pixels(noise_image(0, 500, 400), 224, "clean").shape == (3, 224, 280)
    assert structure_pixels(noise_image(0, 100, 500), 224, "clean").shape == (3, 480, 96)


def test_the_published_structure_input_is_255_times_too_large() -> None:
    grey = Image.new("RGB", (64, 64), (255, 255, 255))
    official, clean = (structure_pixels(grey, 32, profile)[:, 0, 0] for profile in PROFILES)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(official, (255 - mean) / std)
    torch.testing.assert_close(clean, (1 - mean) / std)


def test_only_the_clean_structure_input_is_antialiased() -> None:
    image = noise_image(0, 512, 512)
    official, clean = (structure_pixels(image, SIDE, profile).std() for profile in PROFILES)
    assert clean < official / 255 / 4


def test_dino_input_leaves_a_margin_of_a_sixteenth() -> None:
    image = noise_image(0, 256, 256)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (torch.from_numpy(np.array(image)[16:240, 16:240]) / 255 - mean) / std
    torch.testing.assert_close(dino_pixels(image, 224, "clean"), expected.permute(2, 0, 1))
