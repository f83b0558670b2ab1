"""InstructPix2Pix against diffusers' own pipeline and through the command line, on a tiny pipeline of the real classes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionInstructPix2PixPipeline
from PIL import Image

import sdist
from sdist.cli import main
from sdist.config.build import load_settings, resolve
from sdist.distillation.callbacks import StopCondition
from sdist.editors.base import Observers, generator_of
from sdist.editors.loading import LoadedMethod
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.models.base import Backbone
from sdist.models.instruct_pix2pix import InstructPix2Pix
from sdist.models.loading import load_backbone

from ..conftest import read_json, save_tiny_pipeline, walk_together

STEPS = 4
QUICK = (f"editor.num_inference_steps={STEPS}", "size=keep")
INSTRUCTION = "a red hat"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("instructed"), in_channels=8)


@pytest.fixture(scope="session")
def model(folder: Path) -> Backbone:
    return load_backbone(str(folder), "cpu", conditions=1)


def method(model: Backbone, *overrides: str) -> LoadedMethod:
    return LoadedMethod(load_settings("instruct_pix2pix", [*QUICK, *overrides]), model)


def walked(model: Backbone, requests: Sequence[Request], *overrides: str) -> torch.Tensor:
    """The edited latents of those requests, all at once."""
    return walk_together(method(model, *overrides), requests)


@pytest.fixture
def request_of(picture: Path) -> Callable[..., Request]:
    return lambda instruction=INSTRUCTION, **more: Request(picture, "", "", instruction=instruction, **more)


# --- the same as diffusers ---------------------------------------------------------------------------------------------


def of_diffusers(model: Backbone, request: Request, scales: tuple[float, float]) -> torch.Tensor:
    """The edited latents by diffusers' own pipeline from the same generator."""
    pipeline = StableDiffusionInstructPix2PixPipeline(
        vae=model.vae, unet=model.denoiser, text_encoder=model.text.encoders[0], tokenizer=model.text.tokenizers[0],
        scheduler=EulerAncestralDiscreteScheduler.from_config({**model.scheduler.config, "timestep_spacing": "linspace"}),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    prepared = method(model).prepare(request)
    return pipeline(
        request.instruction, prepared.image, STEPS, *scales, generator=generator_of(prepared), output_type="latent"
    ).images  # fmt: skip


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scales", [(7.5, 1.5), (2.0, 1.0)])
def test_it_is_diffusers_pipeline_to_rounding(
    request_of, tmp_path: Path, prediction_type: str, scales: tuple[float, float]
) -> None:
    model = load_backbone(str(save_tiny_pipeline(tmp_path, prediction_type, in_channels=8)), "cpu", conditions=1)
    wanted = of_diffusers(model, request_of(), scales)
    ours = walked(model, [request_of()], f"editor.guidance_scale={scales[0]}", f"editor.image_guidance_scale={scales[1]}")
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_it_is_diffusers_pipeline_on_a_schedule_that_ends_in_noise_alone(request_of, tmp_path: Path) -> None:
    save_tiny_pipeline(tmp_path, "v_prediction", in_channels=8)
    config = tmp_path / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**read_json(config), "rescale_betas_zero_snr": True}))
    model = load_backbone(str(tmp_path), "cpu", conditions=1)
    assert model.scales(torch.tensor([model.last_timestep]), (8, 8))[0] == 0
    wanted = of_diffusers(model, request_of(), (2.0, 1.5))
    ours = walked(model, [request_of()], "editor.guidance_scale=2", "editor.image_guidance_scale=1.5")
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))  # its latents begin at 4096


# --- what it depends on ------------------------------------------------------------------------------------------------


def test_company_changes_nothing(model: Backbone, request_of) -> None:
    requests = [request_of(), request_of("a dog", seed=3), request_of()]
    together = walked(model, requests)
    assert torch.equal(together[0], together[2])
    for row, request in enumerate(requests):
        torch.testing.assert_close(walked(model, [request]), together[row : row + 1], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "change", [{"instruction": "a dog"}, {"seed": 1}, {"guidance": 5}, {"image_guidance": 1.2}, {"solver": "ddim"}]
)
def test_each_part_counts(model: Backbone, request_of, change: dict) -> None:
    keys = {"guidance": "guidance_scale", "image_guidance": "image_guidance_scale", "solver": "solver"}
    overrides = [f"editor.{keys[name]}={value}" for name, value in change.items() if name in keys]
    request = replace(request_of(), **{name: value for name, value in change.items() if name not in keys})
    assert not torch.allclose(walked(model, [request], *overrides), walked(model, [request_of()]), atol=1e-3)


def test_prompts_are_not_read_beside_an_instruction(model: Backbone, request_of) -> None:
    told = replace(request_of(), source="a cat", target="a dog")
    assert torch.equal(walked(model, [told]), walked(model, [request_of()]))


def test_any_size(model: Backbone, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (36, 52, 3), np.uint8)).save(tmp_path / "wide.png")
    edit = method(model)
    (result,) = edit.edit([edit.prepare(Request(tmp_path / "wide.png", "", "", instruction=INSTRUCTION))])
    assert result.image.size == (52, 36)


def test_the_unet_reads_unscaled_latents(model: Backbone) -> None:
    assert isinstance(model, InstructPix2Pix)
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    wanted = model.vae.encode(pixels).latent_dist.mode()
    torch.testing.assert_close(model.condition(pixels), wanted)
    assert model.vae.config.scaling_factor != 1


# --- through the command line ------------------------------------------------------------------------------------------

Edit = Callable[..., int]


@pytest.fixture
def edit(folder: Path, picture: Path, tmp_path: Path) -> Edit:
    """The command `sdist edit` with an instruction, quick, writing to tmp_path / output."""

    def run(output: str, *more: str, model: Path | None = None, method: str = "instruct_pix2pix") -> int:
        where = ("--model", str(model or folder), "--output", str(tmp_path / output))
        return main(["edit", str(picture), "--method", method, *where, "--quiet", *more, "--set", *QUICK[:1]])

    return run


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), np.int16)


def error(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sdist: error:")]
    return line


def made(folder: Path, seed: int = 0, end: str = ".png") -> Path:
    """A file of the one result of that seed."""
    (path,) = folder.glob(f"picture_*_seed{seed}{end}")
    return path


def test_the_instruction_is_enough_and_its_card_replays(edit: Edit, tmp_path: Path, capsys) -> None:
    assert edit("out", "--instruction", INSTRUCTION, "--seeds", "2", "--parallel", "2") == 0
    first, second = (pixels(made(tmp_path / "out", seed)) for seed in (0, 1))
    assert not np.array_equal(first, second)
    card = read_json(made(tmp_path / "out", 1, ".json"))
    assert (card["job"]["instruction"], card["job"]["target"], card["settings"]["editor"]["name"]) == (
        INSTRUCTION, "", "instruct_pix2pix",
    )  # fmt: skip
    capsys.readouterr()
    assert main(["replay", str(made(tmp_path / "out", 1)), "--quiet"]) == 0
    assert "identical" in capsys.readouterr().out


def test_a_card_of_before_names_the_same_editor() -> None:
    """Of the time when diffusers' pipeline did the work."""
    own = {"name": "instruct_pix2pix", "guidance_scale": 7.5, "image_guidance_scale": 1.5, "num_inference_steps": 100}
    plain = load_settings("instruct_pix2pix").plain()
    for key in ("editor", "baseline"):
        before = {**{k: v for k, v in plain.items() if k != "editor"}, key: own}
        assert resolve(json.loads(json.dumps(before)), "card") == load_settings("instruct_pix2pix")


def test_without_an_instruction_the_target_prompt_is_given_as_one(edit: Edit, tmp_path: Path, caplog) -> None:
    runs = {
        "without": ("--source", "a cat", "--target", INSTRUCTION),
        "same": ("--instruction", INSTRUCTION),
        "other": ("--target", INSTRUCTION, "--instruction", "a dog"),
    }
    for output, more in runs.items():
        assert edit(output, *more) == 0
    without, same, other = (pixels(made(tmp_path / output)) for output in runs)
    assert np.array_equal(without, same)
    assert not np.array_equal(without, other)
    assert caplog.text.count("1 of 1 images have no instruction: the target prompt is given as one") == 1


def test_run_reads_the_instruction_column_for_those_who_follow_it(
    edit: Edit, folder: Path, tiny_folder: Path, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "input" / "images").mkdir(parents=True)
    (tmp_path / "input" / "images" / "x.png").write_bytes(picture.read_bytes())
    lines = ("img_path,source_prompt,target_prompt,instruction", "x.png,a cat,a cat wearing a hat,a red house")
    (tmp_path / "input" / "index.csv").write_text("\n".join(lines))
    for name, model, quick in (("instruct_pix2pix", folder, QUICK[0]), ("sdedit", tiny_folder, "editor.num_inference_steps=4")):
        arguments = ["run", "--input", str(tmp_path / "input"), "--output", str(tmp_path / name), "--method", name]
        assert main([*arguments, "--model", str(model), "--quiet", "--set", quick]) == 0
    assert edit("told", "--instruction", "a red house") == 0
    assert np.array_equal(pixels(made(tmp_path / "told")), pixels(tmp_path / "instruct_pix2pix" / "x_seed0.png"))
    assert read_json(tmp_path / "sdedit" / "x_seed0.json")["job"]["instruction"] is None


def test_from_python(folder: Path, picture: Path, tmp_path: Path, edit: Edit) -> None:
    result = sdist.edit(
        picture, instruction=INSTRUCTION, method="instruct_pix2pix", model=str(folder), device="cpu", settings=QUICK[:1]
    )
    assert edit("out", "--instruction", INSTRUCTION) == 0
    assert np.array_equal(np.asarray(result.image, np.int16), pixels(made(tmp_path / "out")))


def test_steps_can_be_watched(folder: Path, picture: Path) -> None:
    seen = []
    result = sdist.edit(
        picture, instruction=INSTRUCTION, method="instruct_pix2pix", model=str(folder), device="cpu", settings=QUICK[:1],
        on_step=seen.append,
    )  # fmt: skip
    assert [snapshot.step for snapshot in seen] == list(range(STEPS + 1))
    assert {snapshot.steps for snapshot in seen} == {STEPS}
    assert np.array_equal(np.asarray(seen[-1].image), np.asarray(result.image))
    assert not np.array_equal(np.asarray(seen[-2].image), np.asarray(result.image))


def test_an_edit_can_be_stopped_and_its_card_tells_where(model: Backbone, request_of, tmp_path: Path, capsys) -> None:
    request = request_of()
    edit = LoadedMethod(load_settings("instruct_pix2pix", QUICK, model=str(model.name), device="cpu"), model)
    stopping = StopCondition(lambda walk: bool(walk.step[0] == 2))
    batch = [edit.prepare(replace(request, seed=seed)) for seed in (0, 1)]
    first, second = edit.edit(batch, Observers([stopping], parallel=2))
    assert (first.attempts, second.attempts) == ((1, 1), (1, 1))
    assert (first.is_whole, second.is_whole) == (False, False)
    replace(first, card=edit.card(first)).save(tmp_path / "stopped.png")
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "stopped.png"), "--quiet"]) in (0, 1)
    assert capsys.readouterr().out.startswith(("identical", "differs: by at most 1 "))  # alone, it was rounded otherwise


@pytest.mark.parametrize("last", [STEPS, STEPS + 1], ids=["asked to stop at the end", "not asked"])
def test_an_edit_that_made_its_last_step_is_whole(model: Backbone, request_of, last: int) -> None:
    edit = method(model)
    (result,) = edit.edit([edit.prepare(request_of())], Observers([StopCondition(lambda walk: bool(walk.step[0] == last))]))
    assert (len(result.attempts), result.is_whole) == (STEPS, True)


# --- what is refused ---------------------------------------------------------------------------------------------------

REFUSED = {
    "nothing said": ([], "the target prompt is empty"),
    "an empty instruction": (["--instruction", " "], "the target prompt is empty"),
    "a long one": (["--instruction", "cat " * 40], "this model reads 24"),
    "words": (["--instruction", INSTRUCTION, "--words", "hat"], "reads no words"),
    "a mask": (["--instruction", INSTRUCTION, "--mask", "PICTURE"], "reads no mask"),
    "a trace": (["--instruction", INSTRUCTION, "--record", "TRACE"], "--record"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_it_cannot_use_is_one_line(what: str, edit: Edit, picture: Path, tmp_path: Path, capsys) -> None:
    given, message = REFUSED[what]
    places = {"PICTURE": str(picture), "TRACE": str(tmp_path / "trace")}
    assert edit("out", *(places.get(word, word) for word in given)) == 2
    assert message in error(capsys)
    assert not list(tmp_path.rglob("*seed0.png"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("editor.num_inference_steps=0", "num_inference_steps must be at least 1, got 0"),
        ("editor.solver=null", "solver cannot be null"),
        ("editor.guidance_scale=.nan", "guidance_scale must be finite, got nan"),
        ("editor.image_guidance_scale=.inf", "image_guidance_scale must be finite, got inf"),
        ("editor.image_guidance_scale=nan", "image_guidance_scale must be finite, got nan"),
        ("editor.solver=eulr", "unknown solver 'eulr'"),
        ("checkpoint=true", "checkpoint: no setting of the editor instruct_pix2pix"),
    ],
)
def test_bad_settings_are_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        load_settings("instruct_pix2pix", [override])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["instruct_pix2pix", "lime"])
def test_a_loaded_model_that_reads_no_image_is_refused(name: str, tiny_folder: Path) -> None:
    with pytest.raises(UserError, match="this model reads no image, it is no InstructPix2Pix; --model instruct-pix2pix is one"):
        LoadedMethod(load_settings(name), load_backbone(str(tiny_folder), "cpu"))


def test_more_steps_than_the_model_has(model: Backbone) -> None:
    with pytest.raises(UserError, match="asks for 2000 steps, this model has 1000"):
        method(model, "editor.num_inference_steps=2000")


@pytest.mark.parametrize(
    ("name", "instructed", "message"),
    [
        (
            "instruct_pix2pix",
            False,
            "no InstructPix2Pix: its UNet reads 4 latent channels, it gets 8; --model instruct-pix2pix is",
        ),
        (
            "sdedit",
            True,
            "no text-to-image Stable Diffusion: its UNet reads 8 latent channels, it gets 4; an InstructPix2Pix goes",
        ),
        ("p2p", True, "no text-to-image Stable Diffusion: its UNet reads 8 latent channels, it gets 4; an InstructPix2Pix goes"),
        ("dds", True, "no text-to-image Stable Diffusion: its UNet reads 8 latent channels, it gets 4; an InstructPix2Pix goes"),
    ],
)
def test_a_model_of_another_kind_is_named(
    name: str, instructed: bool, message: str, folder: Path, tiny_folder: Path, picture: Path, tmp_path: Path, capsys
) -> None:
    place = folder if instructed else tiny_folder
    said = ["--source", "a cat", "--target", "a dog"]
    assert main(["edit", str(picture), *said, "--method", name, "--model", str(place), "--output", str(tmp_path / "out")]) == 2
    line = error(capsys)
    assert message in line
    assert str(place) in line


def test_a_prompt_editor_refuses_an_instruction(tiny_folder: Path, picture: Path, tmp_path: Path, capsys) -> None:
    arguments = [
        "edit",
        str(picture),
        "--instruction",
        INSTRUCTION,
        "--model",
        str(tiny_folder),
        "--output",
        str(tmp_path / "out"),
    ]
    assert main([*arguments, "--method", "dds"]) == 2
    assert "dds reads no instruction" in error(capsys)
