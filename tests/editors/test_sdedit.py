"""SDEdit on the denoising loop: diffusers' img2img to rounding, and every family of models."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline
from PIL import Image, PngImagePlugin

from experiments.architectures import save_pipeline
from sdist.cli import main
from sdist.config.build import load_settings
from sdist.editors.base import generator_of
from sdist.editors.loading import LoadedMethod, load_method
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.files.images import CARD_KEY, to_images, to_pixels
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.registry import SOLVERS

from ..conftest import read_json, save_tiny_pipeline, walk_together
from ..models.test_flux import save_tiny_flux
from ..models.test_stable_diffusion_3 import save_tiny_sd3

STEPS = 8


def method(model: Backbone, *overrides: str) -> LoadedMethod:
    return LoadedMethod(load_settings("sdedit", [f"editor.num_inference_steps={STEPS}", *overrides]), model)


def walked(model: Backbone, requests: Sequence[Request], *overrides: str) -> torch.Tensor:
    """The edited latents of those requests, all at once."""
    return walk_together(method(model, *overrides), requests)


@pytest.fixture
def request_of(picture: Path) -> Callable[..., Request]:
    return lambda target="a cat wearing a hat", seed=0: Request(picture, "a cat", target, seed=seed)


# --- the same as diffusers ---------------------------------------------------------------------------------------------


def of_diffusers(model: Backbone, request: Request, *overrides: str) -> torch.Tensor:
    """The edited latents by diffusers' own pipeline from the same generator."""
    scheduler = DDIMScheduler.from_config({**model.scheduler.config, "clip_sample": False, "steps_offset": 1})
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=model.vae, unet=model.denoiser, text_encoder=model.text.encoders[0], tokenizer=model.text.tokenizers[0],
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    sdedit = method(model, *overrides)
    prepared, editor = sdedit.prepare(request), sdedit.editor
    return pipeline(
        request.target, prepared.image, editor.strength, editor.num_inference_steps,
        guidance_scale=editor.guidance_scale, generator=generator_of(prepared), output_type="latent",
    ).images  # fmt: skip


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(str(save_tiny_pipeline(tmp_path_factory.mktemp("model"), request.param)), "cpu")


@pytest.mark.parametrize(("strength", "scale"), [(0.3, 7.5), (0.75, 1.0), (1.0, 7.5)])
def test_it_is_diffusers_pipeline_to_rounding(request_of, model: Backbone, strength: float, scale: float) -> None:
    settings = (f"editor.strength={strength}", f"editor.guidance_scale={scale}")
    wanted = of_diffusers(model, request_of(seed=3), *settings)
    ours = walked(model, [request_of(seed=3)], *settings)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_it_ends_where_the_models_scheduler_says(request_of, tiny: Backbone, tmp_path: Path) -> None:
    """Stable Diffusion's own configuration ends at timestep 0 and not at clean data."""
    config = save_tiny_pipeline(tmp_path) / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**read_json(config), "set_alpha_to_one": False}))
    model = load_backbone(str(tmp_path), "cpu")
    ours = walked(model, [request_of()])
    torch.testing.assert_close(ours, of_diffusers(model, request_of()), rtol=0, atol=1e-5 * float(ours.abs().max()))
    assert not torch.allclose(ours, walked(tiny, [request_of()]), rtol=0, atol=1e-4)


def test_replay_says_why_a_card_of_before_differs(tiny_folder: Path, picture: Path, tmp_path: Path, caplog) -> None:
    arguments = ["edit", str(picture), "--target", "a dog", "--method", "sdedit", "--model", str(tiny_folder), "--quiet"]
    assert main([*arguments, "--output", str(tmp_path / "out"), "--set", f"editor.num_inference_steps={STEPS}"]) == 0
    (path,) = (tmp_path / "out").glob("*seed0.png")
    assert main(["replay", str(path)]) == 0
    assert "sampler" not in caplog.text
    card, info = read_json(path.with_suffix(".json")), PngImagePlugin.PngInfo()
    del card["weights"], card["settings"]["editor"]["solver"]
    info.add_itxt(CARD_KEY, json.dumps(card))
    Image.open(path).save(path, pnginfo=info)
    assert main(["replay", str(path)]) == 0
    (line,) = [record.getMessage() for record in caplog.records if "sampler" in record.getMessage()]
    assert line == "sampler is sdist's own, this picture was made with one that its card does not name: it will differ"


# --- what it depends on ------------------------------------------------------------------------------------------------


def test_company_changes_nothing(tiny: Backbone, request_of) -> None:
    requests = [request_of(), request_of("a dog", seed=3), request_of()]
    together = walked(tiny, requests)
    assert torch.equal(together[0], together[2])
    for row, request in enumerate(requests):
        torch.testing.assert_close(walked(tiny, [request]), together[row : row + 1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("change", ["target=a dog", "seed=1", "editor.strength=0.5", "editor.solver=euler_ancestral"])
def test_each_part_counts(tiny: Backbone, request_of, change: str) -> None:
    key, _, value = change.partition("=")
    overrides = [change] if key.startswith("editor.") else []
    request = request_of() if overrides else replace(request_of(), **{key: int(value) if key == "seed" else value})
    assert not torch.allclose(walked(tiny, [request], *overrides), walked(tiny, [request_of()]), atol=1e-3)


def test_the_source_prompt_is_not_read(tiny: Backbone, request_of) -> None:
    assert torch.equal(walked(tiny, [replace(request_of(), source="snow")]), walked(tiny, [request_of()]))


def test_weak_noise_keeps_the_image_and_strong_noise_does_not() -> None:
    tinyworld = load_backbone("tinyworld", "cpu")
    ready = LoadedMethod(load_settings("sdedit"), tinyworld)
    demo = ready.prepare(Request(Path("assets/demo.png"), "a field of snow", "a red balloon in the snow"))
    (near,) = to_images(tinyworld.decode(tinyworld.encode(to_pixels([demo.image]))))
    distance = {}
    for strength in (0.05, 1.0):
        editor = replace(ready.editor, strength=strength, num_inference_steps=20)
        (image,) = to_images(tinyworld.decode(editor.walk(tinyworld, [demo])))
        distance[strength] = float(np.abs(np.asarray(image, float) - np.asarray(near, float)).mean())
    assert distance[0.05] < 4 < 8 < distance[1.0]


FAMILIES = {
    "xl": lambda folder: save_pipeline(folder, "sdxl", narrow=32),
    "shifted vae": lambda folder: save_tiny_pipeline(folder, shift=0.1),
    "sd3": save_tiny_sd3,
    "flux": save_tiny_flux,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_models_and_every_solver(family: str, picture: Path, tmp_path: Path) -> None:
    model = load_method(load_settings("sdedit", model=str(FAMILIES[family](tmp_path)), device="cpu")).model
    seen = []
    for solver in SOLVERS.names():
        ready = method(model, "size=64x64", "editor.num_inference_steps=3", f"editor.solver={solver}")
        cat, dog = (ready.prepare(Request(picture, "", target)) for target in ("a cat", "a dog"))
        seen += [result.image for result in ready.edit([cat, dog])]
        assert seen[-1].size == (64, 64)
    assert len({image.tobytes() for image in seen}) == 2 * len(SOLVERS.names())


def test_half_precision_is_the_denoisers_alone(tiny_folder: Path, picture: Path) -> None:
    ready = load_method(load_settings("sdedit", model=str(tiny_folder), device="cpu", precision="bf16"))
    assert (ready.model.dtype, ready.model.vae.dtype) == (torch.bfloat16, torch.float32)
    (result,) = ready.edit([ready.prepare(Request(picture, "", "a dog"))])
    assert result.card["model"]["precision"] == "bfloat16"


# --- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("editor.strength=0.1", "num_inference_steps x strength at least 1"),
        ("editor.strength=1.5", "at most 1, "),
        ("editor.guidance_scale=0", "guidance_scale must be at least 1"),
        ("editor.num_inference_steps=2000", "from 1 to 500, got 2000"),
        ("editor.solver=eulr", "unknown solver 'eulr'"),
    ],
)
def test_bad_values_are_named(override: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        load_settings("sdedit", ["editor.num_inference_steps=8", override])
    assert message in str(raised.value)


def test_more_steps_than_the_model_has(tmp_path: Path) -> None:
    config = save_tiny_pipeline(tmp_path) / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**read_json(config), "num_train_timesteps": 600}))
    with pytest.raises(UserError, match="from 1 to 300, got 400"):
        method(load_backbone(str(tmp_path), "cpu"), "editor.num_inference_steps=400")
