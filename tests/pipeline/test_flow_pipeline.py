"""The pipeline class on flow models: Stable Diffusion 3, and tinyworld-flow, which borrows parts of tinyworld."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxKontextPipeline, FluxPipeline, StableDiffusion3Pipeline
from torch import nn

import sdist
from sdist import ScoreDistillationPipeline, UserError
from sdist.models.base import Backbone
from sdist.models.catalogue import TINYWORLD
from sdist.models.loading import assemble
from sdist.pipeline.networks import restoring_state

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


def test_a_transformer_runs_in_its_own_format_and_all_networks_stay_in_theirs(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembled = []

    def watched(parts: dict[str, Any], *arguments: Any) -> Backbone:
        assembled.append({name: part.dtype for name, part in parts.items() if isinstance(part, nn.Module)})
        return assemble(parts, *arguments)

    monkeypatch.setattr("sdist.pipeline.networks.assemble", watched)
    pipe = load(save_tiny_sd3(tmp_path / "sd3")).to(torch.bfloat16)
    networks = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    before = {name: {key: value.dtype for key, value in part.state_dict().items()} for name, part in networks.items()}
    card = pipe(image=picture, **PROMPTS).cards[0]
    assert card["model"]["precision"] == "bfloat16"
    half = {"transformer", "text_encoder_3"}  # T5 too
    assert assembled == [{name: torch.bfloat16 if name in half else torch.float32 for name in networks}]
    assert before == {name: {key: value.dtype for key, value in part.state_dict().items()} for name, part in networks.items()}


def test_buffers_are_afterwards_where_they_were() -> None:
    norm = nn.BatchNorm1d(2, affine=False)
    before = dict(norm.named_buffers())
    with restoring_state(norm):
        norm.to("meta")
    assert all(buffer is before[name] for name, buffer in norm.named_buffers())


def test_networks_that_do_not_fit_are_one_line(picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    pipe = load(save_tiny_sd3(tmp_path / "sd3"))
    monkeypatch.setattr(nn.Module, "to", full)
    with pytest.raises(UserError, match="the model does not fit in memory: CUDA out of memory"):
        pipe(image=picture, **PROMPTS)


def test_flux(picture: Path, tmp_path: Path) -> None:
    folder = save_tiny_flux(tmp_path / "flux")
    expected = edit(picture, str(folder)).image
    for pipe in (load(folder), ScoreDistillationPipeline.from_pipe(FluxPipeline.from_pretrained(folder))):
        pipe.set_progress_bar_config(disable=True)
        assert same(pipe(image=picture, **PROMPTS).images[0], expected)


def test_an_editor_by_instruction_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = save_tiny_flux(tmp_path / "flux")
    text_to_image = FluxPipeline.from_pretrained(folder)
    kontext = FluxKontextPipeline(**text_to_image.components)
    kontext.save_pretrained(tmp_path / "kontext")
    for made in (lambda: load(tmp_path / "kontext"), lambda: ScoreDistillationPipeline.from_pipe(kontext)):
        with pytest.raises(UserError, match="a FluxKontextPipeline reads an instruction and the image"):
            made()


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
        ({"method": 3}, "method must be text or a path or None, got 3"),
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
