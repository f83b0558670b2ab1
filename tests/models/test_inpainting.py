"""An inpainting UNet reads the user's mask and the image around it; without a mask, or with other editors, it is one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.editors.loading import load_method
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.models.inpainting import StableDiffusionInpainting
from sdist.models.loading import load_backbone

from ..conftest import save_tiny_pipeline

QUICK = ("scale.threshold=0.01", "scale.cross_level=1", "scale.self_level=0", "steps=2")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("inpainting"), in_channels=9)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    pixels = np.zeros((32, 32), np.uint8)
    pixels[:16, :16] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def test_the_condition_is_the_mask_and_the_image_without_what_is_masked(folder: Path) -> None:
    """In the order and scaling of diffusers: mask, then latents."""
    model = load_backbone(str(folder), "cpu")
    assert isinstance(model, StableDiffusionInpainting)
    pixels, mask = torch.rand(1, 3, 32, 32) * 2 - 1, torch.zeros(1, 1, 32, 32)
    mask[:, :, :16, :16] = 1
    found = model.condition(pixels, mask)
    assert found.shape == (1, 5, 8, 8)
    assert torch.equal(found[0, 0], nn.functional.pad(torch.ones(4, 4), (0, 4, 0, 4)))
    with torch.no_grad():
        expected = model.vae.encode(pixels * (mask < 0.5)).latent_dist.mode() * model.vae.config.scaling_factor
    assert torch.allclose(found[:, 1:], expected, atol=1e-6)


@pytest.mark.parametrize("method", ["lusd", "dds", "cds"])
def test_methods_give_it_the_mask(folder: Path, picture: Path, mask: Path, method: str) -> None:
    loaded = load_method(
        load_settings(method, ["steps=2", *(QUICK[:3] if method == "lusd" else ())], model=str(folder), device="cpu")
    )
    prepared = loaded.prepare(Request(picture, "a cat", "a cat wearing a hat", mask=mask))
    seen = []
    hook = loaded.model.denoiser.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    (result,) = loaded.edit([prepared])
    hook.remove()
    assert all(z.shape[1] == 9 for z in seen)
    assert all(torch.equal(z[:, 4], seen[0][: len(z), 4]) for z in seen)
    assert seen[0][0, 4].mean() == 0.25
    assert result.card["model"]["name"] == str(folder)


def test_it_is_replayed(folder: Path, picture: Path, mask: Path, tmp_path: Path, capsys) -> None:
    where = ("--model", str(folder), "--output", str(tmp_path / "out.png"), "--mask", str(mask))
    assert main(["edit", str(picture), "--source", "a cat", "--target", "a hat", *where, "--set", *QUICK]) == 0
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "out.png")]) == 0
    assert capsys.readouterr().out == "identical\n"


def test_without_a_mask_or_with_another_editor_it_is_one_line(folder: Path, picture: Path) -> None:
    loaded = load_method(load_settings("dds", [], model=str(folder), device="cpu"))
    with pytest.raises(UserError, match=r"is an inpainting model: say where the edit may happen \(--mask IMAGE\)"):
        loaded.prepare(Request(picture, "a cat", "a cat wearing a hat"))
    with pytest.raises(UserError, match="is an inpainting model, which reads a mask, and sdedit cannot give it one"):
        load_method(load_settings("sdedit", [], model=str(folder), device="cpu"))
