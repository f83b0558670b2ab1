"""The pipeline class on flow models: Stable Diffusion 3, and tinyworld-flow, which borrows parts of tinyworld."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from diffusers import FluxPipeline, StableDiffusion3Pipeline

import sdist
from sdist import ScoreDistillationPipeline, UserError
from sdist.models.catalogue import TINYWORLD

from ..models.test_flux import save_tiny_flux
from ..models.test_stable_diffusion_3 import save_tiny_sd3
from .test_pipeline import load, same

PROMPTS = {"prompt": "a dog", "source_prompt": "a cat", "method": "dds", "num_inference_steps": 2}


def edit(image: Path, model: str) -> sdist.Result:
    return sdist.edit(image, "a cat", "a dog", model=model, method="dds", steps=2)


@pytest.mark.parametrize("t5", [True, False])
def test_stable_diffusion_3(picture: Path, tmp_path: Path, t5: bool) -> None:
    folder = save_tiny_sd3(tmp_path / "sd3", t5)
    expected = edit(picture, str(folder)).image
    absent = {} if t5 else {"text_encoder_3": None, "tokenizer_3": None}
    shared = ScoreDistillationPipeline.from_pipe(StableDiffusion3Pipeline.from_pretrained(folder, **absent))
    shared.set_progress_bar_config(disable=True)
    shared.save_pretrained(tmp_path / "saved")
    assert shared.unet is None
    for pipe in (shared, load(folder), load(tmp_path / "saved")):
        assert same(pipe(image=picture, **PROMPTS).images[0], expected)
    assert same(edit(picture, str(tmp_path / "saved")).image, expected)


def test_flux(picture: Path, tmp_path: Path) -> None:
    folder = save_tiny_flux(tmp_path / "flux")
    expected = edit(picture, str(folder)).image
    for pipe in (load(folder), ScoreDistillationPipeline.from_pipe(FluxPipeline.from_pretrained(folder))):
        pipe.set_progress_bar_config(disable=True)
        assert same(pipe(image=picture, **PROMPTS).images[0], expected)


def test_tinyworld_flow_by_its_alias_and_by_its_folder(picture: Path, tmp_path: Path) -> None:
    expected = edit(picture, "tinyworld-flow").image
    copy = shutil.copytree(TINYWORLD / "flow", tmp_path / "copy")
    for name in ("tinyworld-flow", TINYWORLD / "flow", copy):
        pipe = load(name)
        assert same(pipe(image=picture, **PROMPTS).images[0], expected)


def test_what_is_no_pipeline_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, message in (
        (tmp_path / "empty", "it has no model_index.json"),
        ("no/such-model", "^no/such-model: "),
        ("tinywrold", "did you mean 'tinyworld'"),
    ):
        with pytest.raises(UserError, match=message) as error:
            load(name)
        assert "\n" not in str(error.value)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": 3}, "method must be text or a path, got 3"),
        ({"num_inference_steps": "3"}, "num_inference_steps must be a whole number or None"),
        ({"generator": 5}, "generator must be a Generator or"),
        ({"words": 5}, "words must be text or a list"),
        ({"height": "a"}, "height must be a whole number"),
        ({"prompt": 3}, "prompt is str"),
        ({"image": 3}, "image is str or"),
        ({"settings": 3}, "settings is a mapping or a list"),
        ({"callback_on_step_end": 3}, "callback_on_step_end must be a function or"),
        ({"sauce": "a"}, "unknown argument 'sauce'"),
    ],
)
def test_arguments_of_wrong_types(picture: Path, tiny_folder: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(tiny_folder)(**{"image": picture, **PROMPTS, **given})
