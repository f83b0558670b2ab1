"""The pipeline class: what sdist.edit makes, in the manners of diffusers, and networks that are left as they were."""

import inspect
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, PNDMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.callbacks import PipelineCallback, SDCFGCutoffCallback
from PIL import Image

import sdist
from experiments.architectures import save_pipeline
from sdist import ScoreDistillationPipeline, UserError
from sdist.cli import main
from sdist.config.build import load_settings
from sdist.config.methods import shipped
from sdist.models.catalogue import IN_MEMORY, TINYWORLD

from ..conftest import save_tiny_pipeline

PROMPTS = {"prompt": "a cat wearing a hat", "source_prompt": "a cat"}
SETTINGS = {"scale": {"threshold": 0.01, "cross_level": 1, "self_level": 0}}
METHODS = sorted(name for name in shipped("method") if load_settings(name).editor.stepwise)


def load(folder: Path, **options) -> ScoreDistillationPipeline:
    pipe = ScoreDistillationPipeline.from_pretrained(folder, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe: ScoreDistillationPipeline, image, **options):
    """Three steps of LUSD where nothing else is said."""
    return pipe(image=image, **{**PROMPTS, "num_inference_steps": 3, "settings": SETTINGS, **options})


def edit(image, model: Path, **options) -> sdist.Result:
    return sdist.edit(image, "a cat", "a cat wearing a hat", model=str(model), **{"steps": 3, "settings": SETTINGS, **options})


def same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


@pytest.fixture
def pipe(tiny_folder: Path) -> ScoreDistillationPipeline:
    return load(tiny_folder)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another picture of the size of `picture`."""
    path = tmp_path / "other.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    return path


def test_it_makes_what_edit_makes(pipe: ScoreDistillationPipeline, tiny_folder: Path, picture: Path) -> None:
    generator = torch.Generator().manual_seed(7)
    out, expected = run(pipe, picture, generator=generator), edit(picture, tiny_folder, seed=7)
    assert same(out.images[0], expected.image)
    assert torch.equal(out.masks[0], expected.mask)
    apart = {"created", "seconds", "settings", "model"}  # the settings say auto where the pipeline knows
    assert {k: v for k, v in out.cards[0].items() if k not in apart} == {k: v for k, v in expected.card.items() if k not in apart}
    assert out.cards[0]["model"]["fingerprint"] == expected.card["model"]["fingerprint"]
    assert out.cards[0]["settings"]["model"] == str(tiny_folder)
    assert generator.initial_seed() == 7
    assert torch.equal(torch.rand(2, generator=generator), torch.rand(2, generator=torch.Generator().manual_seed(7)))


@pytest.mark.parametrize("method", [*METHODS, "sdedit"])
def test_every_method_runs(pipe: ScoreDistillationPipeline, tiny_folder: Path, picture: Path, method: str) -> None:
    own: dict = {"steps": 2 if method == "chordedit" else 1, "settings": SETTINGS}  # its last step is the clean-up
    if method == "sdedit":
        own = {"steps": None, "settings": {"editor.num_inference_steps": 2}}
    out = run(pipe, picture, method=method, num_inference_steps=own["steps"], settings=own["settings"])
    ours, theirs = (np.asarray(image, int) for image in (out.images[0], edit(picture, tiny_folder, method=method, **own).image))
    levels = 1 if method == "rfds_rev" else 0  # Adam's first step is a sign, which rounding decides where a gradient is nearly 0
    assert abs(ours - theirs).max() <= levels
    assert (ours != theirs).mean() < 0.01


def test_the_background_is_kept_at_the_images_own_size(pipe: ScoreDistillationPipeline, tiny_folder: Path) -> None:
    photo = Image.fromarray(np.random.default_rng(2).integers(0, 255, (60, 90, 3), np.uint8))
    options = {"keep_background": True, "output_size": "source"}
    output = run(pipe, photo, **options)
    assert output.images[0].size == (90, 60)
    assert same(output.images[0], edit(photo, tiny_folder, **options).image)


def test_a_mask_and_words_reach_the_method(pipe: ScoreDistillationPipeline, tiny_folder: Path, picture: Path) -> None:
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 16, 32))
    out = run(pipe, Image.open(picture), mask_image=mask, words="cat")
    assert same(out.images[0], edit(picture, tiny_folder, mask=mask, words="cat").image)
    assert (out.cards[0]["words"], out.cards[0]["job"]["mask"].endswith(".png")) == (["cat"], True)
    assert "/" not in out.cards[0]["job"]["image"] + out.cards[0]["job"]["mask"]
    assert not same(out.images[0], run(pipe, picture, words="cat").images[0])


@pytest.mark.parametrize("method", ["instruct_pix2pix", "lime"])
def test_the_prompt_of_an_instruction_editor_is_its_instruction(picture: Path, method: str, caplog) -> None:
    pipe, said = ScoreDistillationPipeline.from_pretrained("tinyworld-instruct"), "put a red balloon in the sky"
    (made,) = pipe(said, picture, method=method, num_inference_steps=2, seed=1).images
    assert "no instruction" not in caplog.text
    edit = sdist.edit(picture, instruction=said, model="tinyworld-instruct", method=method, steps=2, seed=1)
    assert np.abs(np.asarray(made, int) - np.asarray(edit.image, int)).max() <= 1


def test_lists_are_one_queue(pipe: ScoreDistillationPipeline, picture: Path, other: Path) -> None:
    prompts = ["a cat wearing a hat", "a red cat"]
    out = run(pipe, [picture, other], prompt=prompts, seed=[3, 4], words=[["hat"], ["red", "cat"]])
    singles = [
        run(pipe, image, prompt=prompt, seed=seed, words=words)
        for image, prompt, seed, words in zip([picture, other], prompts, [3, 4], ["hat", ["red", "cat"]], strict=True)
    ]
    for i, single in enumerate(singles):
        assert out.cards[i]["attempts"] == single.cards[0]["attempts"]
        assert np.abs(np.asarray(out.images[i], int) - np.asarray(single.images[0], int)).max() <= 1
        assert out.cards[i]["words"] == single.cards[0]["words"]
    assert [card["job"]["seed"] for card in out.cards] == [3, 4]


def test_one_picture_with_several_generators(pipe: ScoreDistillationPipeline, picture: Path) -> None:
    out = run(pipe, picture, generator=[torch.Generator().manual_seed(seed) for seed in (0, 5)])
    assert [card["job"]["seed"] for card in out.cards] == [0, 5]
    assert not same(*out.images)


def test_types_of_the_output(pipe: ScoreDistillationPipeline, picture: Path, other: Path) -> None:
    both = [picture, other]
    images, masks, cards = run(pipe, both, return_dict=False)
    assert (len(images), len(masks), len(cards)) == (2, 2, 2)
    pixels, tensor, latents = (run(pipe, both, output_type=kind).images for kind in ("np", "pt", "latent"))
    assert (pixels.shape, tensor.shape, latents.shape) == ((2, 32, 32, 3), (2, 3, 32, 32), (2, 4, 8, 8))
    assert np.array_equal((pixels * 255).round().astype(np.uint8), np.stack([np.asarray(image) for image in images]))
    assert torch.equal(tensor, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.no_grad():
        decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    torch.testing.assert_close(decoded.clamp(-1, 1) / 2 + 0.5, tensor, atol=0.51 / 255, rtol=0)


def test_grad_modes_of_the_caller_do_not_matter(pipe: ScoreDistillationPipeline, picture: Path) -> None:
    images = [run(pipe, picture, method="cds", num_inference_steps=1).images[0]]
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            images.append(run(pipe, picture, method="cds", num_inference_steps=1).images[0])
    assert same(images[0], images[1])
    assert same(images[0], images[2])


def test_size(pipe: ScoreDistillationPipeline, picture: Path, tmp_path: Path) -> None:
    assert run(pipe, picture, height=40, width=48, num_inference_steps=1).images[0].size == (48, 40)
    Image.new("RGB", (64, 32)).save(tmp_path / "wide.png")
    with pytest.raises(ValueError, match="have one size, these would be 32 x 32, 64 x 32; give height and width"):
        run(pipe, [picture, tmp_path / "wide.png"])


def test_folders_are_shared_with_diffusers_and_with_the_command(tiny_folder: Path, picture: Path, tmp_path: Path, capsys) -> None:
    pipe = ScoreDistillationPipeline.from_pipe(StableDiffusionPipeline.from_pretrained(tiny_folder))
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path / "saved")
    again, theirs = load(tmp_path / "saved"), StableDiffusionPipeline.from_pretrained(tmp_path / "saved", safety_checker=None)
    expected = run(pipe, picture).images[0]
    assert same(run(again, picture).images[0], expected)
    assert torch.equal(theirs.unet.conv_in.weight, pipe.unet.conv_in.weight)
    overrides = ["scale.threshold=0.01", "scale.cross_level=1", "scale.self_level=0"]
    command = ["edit", str(picture), "--source", "a cat", "--target", "a cat wearing a hat", "--steps", "3", "--quiet"]
    assert main([*command, "--model", str(tmp_path / "saved"), "--output", str(tmp_path), "--set", *overrides]) == 0
    assert same(Image.open(tmp_path / "picture_lusd_a-cat-wearing-a-hat_seed0.png"), expected)


def test_an_alias_is_a_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TINYWORLD.parent)
    by_alias, by_relative_path = load("tinyworld"), load("weights")
    monkeypatch.chdir(tmp_path)
    assert by_alias._model == by_relative_path._model == str(TINYWORLD)  # which have the scale of the alias


@pytest.mark.parametrize("kind", [PNDMScheduler, EulerDiscreteScheduler])
def test_any_scheduler_will_do(pipe: ScoreDistillationPipeline, picture: Path, kind: type) -> None:
    expected, before = run(pipe, picture).images[0], pipe.scheduler
    pipe.scheduler = kind.from_config(before.config)
    assert same(run(pipe, picture).images[0], expected)
    assert type(pipe.scheduler) is kind


def state(pipe: ScoreDistillationPipeline) -> list:
    networks = (pipe.unet, pipe.vae, pipe.text_encoder)
    parameters = [(p.dtype, p.stride(), p.requires_grad) for n in networks for p in n.parameters()]
    return [parameters, [m.training for n in networks for m in n.modules()], pipe.unet.is_gradient_checkpointing]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_callers_networks_are_as_they_were(tiny_folder: Path, picture: Path, dtype: torch.dtype) -> None:
    theirs = StableDiffusionPipeline.from_pretrained(tiny_folder, torch_dtype=dtype)
    theirs.unet.train()
    theirs.vae.to(memory_format=torch.channels_last)
    before, values = state(theirs), [p.clone() for p in theirs.unet.parameters()]
    ours = ScoreDistillationPipeline.from_pipe(theirs)
    ours.set_progress_bar_config(disable=True)
    assert all(getattr(ours, name) is getattr(theirs, name) for name in ("unet", "vae", "text_encoder", "tokenizer"))
    assert state(theirs) == before
    run(ours, picture, method="cds", num_inference_steps=1, settings={"checkpoint": True})
    assert state(theirs) == before
    with pytest.raises(ValueError, match="did you mean 'hat'"):
        run(ours, picture, method="lusd_no_filtering", words="hut")
    assert state(theirs) == before
    assert all(torch.equal(*pair) for pair in zip(theirs.unet.parameters(), values, strict=True))
    assert ScoreDistillationPipeline.from_pipe(theirs, torch_dtype=torch.float16).unet.dtype == torch.float16


def test_half_precision_is_that_of_the_unet_and_has_the_gate(tiny_folder: Path, picture: Path, tmp_path: Path) -> None:
    load(tiny_folder, torch_dtype=torch.bfloat16).to(torch.float32).save_pretrained(tmp_path)  # values that bfloat16 can hold
    pipe = load(tmp_path, torch_dtype=torch.bfloat16)
    out = run(pipe, picture, method="dds")
    assert out.cards[0]["model"]["precision"] == "bfloat16"
    assert same(out.images[0], edit(picture, tmp_path, method="dds", precision="bf16").image)
    assert not same(out.images[0], edit(picture, tmp_path, method="dds").image)
    with pytest.raises(
        ValueError, match=r"precision bf16: SD .* allows 2\.0e-07\. Use --precision fp32, or a pipeline of torch.float32"
    ):
        run(pipe, picture, settings={"filter.threshold": 1e-6})
    with pytest.raises(ValueError, match=r"unet is torch\.float64: have torch\.float32"):
        run(load(tmp_path).to(torch.float64), picture)


def test_sdxl(picture: Path, tmp_path: Path) -> None:
    folder = save_pipeline(tmp_path / "sdxl", "sdxl")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)).save(tmp_path / "large.png")
    own = {"settings": {"scale.threshold": 1e-4, "size": "128x128"}, "method": "sds"}
    expected = edit(tmp_path / "large.png", folder, steps=1, **own).image
    pipe = ScoreDistillationPipeline.from_pipe(StableDiffusionXLPipeline.from_pretrained(folder))
    pipe.set_progress_bar_config(disable=True)
    assert pipe.text_encoder_2 is not None
    assert same(run(pipe, tmp_path / "large.png", num_inference_steps=1, **own).images[0], expected)
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    assert not same(run(pipe, tmp_path / "large.png", num_inference_steps=1, **own).images[0], expected)
    pipe.save_pretrained(tmp_path / "saved")
    assert load(tmp_path / "saved").config.force_zeros_for_empty_prompt is False
    pipe.text_encoder_2 = None
    with pytest.raises(ValueError, match="needs text_encoder_2 beside it, which the pipeline does not have"):
        run(pipe, tmp_path / "large.png", **own)


def test_every_step_is_told_as_diffusers_tells_it(pipe: ScoreDistillationPipeline, picture: Path, other: Path) -> None:
    told = []

    def on_step_end(pipeline, step, timestep, tensors):
        assert pipeline is pipe
        told.append((int(tensors["index"]), step, timestep, tensors["latents"], tensors["mask"]))
        return tensors

    names = ["latents", "mask", "index"]
    options = {"callback_on_step_end": on_step_end, "callback_on_step_end_tensor_inputs": names, "output_type": "latent"}
    out = run(pipe, [picture, other], **options)
    for index in (0, 1):
        own = [entry for entry in told if entry[0] == index]
        assert [step for _, step, *_ in own] == [0, 1, 2]
        assert all(50 <= timestep <= 950 for _, _, timestep, *_ in own)
        assert torch.equal(own[-1][3], out.images[index : index + 1])
        assert torch.equal(own[-1][4], out.masks[index])


def test_timesteps_are_told_with_their_fractions(pipe: ScoreDistillationPipeline, picture: Path) -> None:
    told = []
    options = {"method": "dds", "num_inference_steps": 3, "callback_on_step_end": lambda _, __, t, ___: told.append(t)}
    run(pipe, picture, settings={"timesteps": {"name": "descending", "end": 20}}, **options)
    assert told == [999, 509.5, 20]


def replacing(pipeline, step, timestep, tensors):
    return {"latents": tensors["latents"] * 0}


def writing(pipeline, step, timestep, tensors):
    tensors["latents"].zero_()


class Official(PipelineCallback):
    tensor_inputs = ("latents",)

    def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
        return {"latents": callback_kwargs["latents"] + 1}


@pytest.mark.parametrize("callback", [replacing, writing, Official()])
def test_latents_cannot_be_replaced(pipe: ScoreDistillationPipeline, picture: Path, callback) -> None:
    with pytest.raises(ValueError, match="changed the latents: they can be read here and not replaced"):
        run(pipe, picture, callback_on_step_end=callback)


def test_an_interrupted_run_gives_what_there_is(pipe: ScoreDistillationPipeline, picture: Path) -> None:
    def stop_after_two(pipeline, step, timestep, tensors):
        pipeline._interrupt = step == 1

    out = run(pipe, picture, num_inference_steps=50, callback_on_step_end=stop_after_two, callback_on_step_end_tensor_inputs=[])
    assert len(out.cards[0]["attempts"]) == 2
    assert pipe.interrupt
    assert len(run(pipe, picture).cards[0]["attempts"]) == 3


BAD = {
    "an output type": ({"output_type": "jpg"}, "unknown output_type 'jpg': have latent, np, pil, pt"),
    "a tensor": ({"callback_on_step_end_tensor_inputs": ["latent"]}, "did you mean 'latents'"),
    "a callback for guidance": ({"callback_on_step_end": SDCFGCutoffCallback(0.5, None)}, "unknown tensor 'prompt_embeds'"),
    "lists of two lengths": ({"prompt": ["a dog", "a hat"], "seed": [1, 2, 3]}, "got 2 of prompt, 3 of seed"),
    "an empty list": ({"image": []}, "got 0 of image"),
    "a prompt that is no text": ({"prompt": None}, "prompt is str, or a list .* got NoneType"),
    "a tensor for a picture": ({"image": torch.zeros(3, 8, 8)}, "image is str or PathLike or Image or ndarray.* got Tensor"),
    "a seed that is no number": ({"seed": ["x"]}, "seed is int or NoneType, .* got str"),
    "seed and generator": ({"seed": 1, "generator": torch.Generator()}, "give one of them"),
    "a height alone": ({"height": 32}, "got height 32 and width None"),
    "a setting of the components": ({"settings": ["precision=fp16"]}, "precision: the pipeline has its own"),
    "a setting that is none": ({"settings": {"step": 3}}, "unknown key 'step'"),
    "a method": ({"method": "lusdd"}, "did you mean 'lusd'"),
    "no steps": ({"num_inference_steps": 0}, "steps must be at least 1, got 0"),
    "a picture that is not there": ({"image": "nowhere.png"}, "nowhere.png does not exist"),
    "equal prompts": ({"prompt": "a cat"}, "there is nothing to edit"),
    "a callback of an editor whose steps are not watched": (
        {"method": "sdedit", "num_inference_steps": None, "settings": (), "callback_on_step_end": replacing},
        "the steps of sdedit cannot be watched",
    ),
    "latents of an editor that only the library watches": (
        {"method": "p2p", "num_inference_steps": 2, "settings": (), "output_type": "latent"},
        r"the steps of p2p cannot be watched here: .*; sdist.edit\(..., on_step=...\) shows them",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_a_value_error_of_one_line(
    pipe: ScoreDistillationPipeline, picture: Path, name: str, unchecked: None
) -> None:
    given, message = BAD[name]
    with pytest.raises(ValueError, match=message) as raised:
        run(pipe, **{"image": picture, **given})
    assert isinstance(raised.value, UserError)
    assert "\n" not in str(raised.value)


def test_networks_that_hooks_move_are_refused(pipe: ScoreDistillationPipeline, picture: Path) -> None:
    pipe.unet._hf_hook = object()
    with pytest.raises(ValueError, match=r"unet: hooks of offloading .* pipe.to\(device\)"):
        run(pipe, picture)


def test_another_unet_is_refused(picture: Path, tmp_path: Path) -> None:
    pipe = load(save_tiny_pipeline(tmp_path, in_channels=8))
    with pytest.raises(ValueError, match="its UNet reads 8 latent channels, it gets 4"):
        run(pipe, picture)


def test_components_in_memory_have_no_name(pipe: ScoreDistillationPipeline, tiny_folder: Path, picture: Path) -> None:
    out = run(ScoreDistillationPipeline(**pipe.components), picture)
    assert out.cards[0]["settings"]["model"] == out.cards[0]["model"]["name"] == IN_MEMORY
    assert same(out.images[0], edit(picture, tiny_folder).image)


def test_the_progress_bar_is_the_pipelines(tiny_folder: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = ScoreDistillationPipeline.from_pretrained(tiny_folder)
    capsys.readouterr()
    run(pipe, picture)
    assert "3/3" in capsys.readouterr().err
    pipe.set_progress_bar_config(disable=True)
    run(pipe, picture)
    assert capsys.readouterr().err == ""


def test_everything_is_annotated() -> None:
    for function in (ScoreDistillationPipeline.__call__, ScoreDistillationPipeline.__init__):
        hints = typing.get_type_hints(function)
        assert set(inspect.signature(function).parameters) - {"self"} == set(hints) - {"return"}
