"""Diffusers' own editors through the real command line, on tiny pipelines of the real classes."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.architectures import save_pipeline
from sdist.cli import main
from sdist.config.build import load_settings, resolve
from sdist.editors.base import Observers
from sdist.editors.diffusers_pipeline import DiffusersPipeline, Prompts
from sdist.editors.ledits_pp import LeditsPP
from sdist.editors.loading import LoadedMethod, load_method
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.evaluation.results import find_results
from sdist.models.base import Backbone
from sdist.registry import EDITORS

from ..conftest import read_json, save_tiny_pipeline

NAMES = [name for name in EDITORS.names() if issubclass(EDITORS.get(name), DiffusersPipeline)]
QUICK = {"ledits_pp": ("editor.num_inversion_steps=4",)}
PROMPTS = ("--source", "a cat", "--target", "a cat wearing a hat")
SLUG = "a-cat-wearing-a-hat"


@pytest.fixture(scope="session")
def folders(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model for each editor, and one without attention at every level."""
    deep = save_tiny_pipeline(tmp_path_factory.mktemp("deep"), down=("CrossAttnDownBlock2D",) * 3)
    return {"shallow": tiny_folder, "ledits_pp": deep}


Edit = Callable[..., int]


def made(folder: Path, seed: int = 0) -> Path:
    """The one result of that seed of `sdist edit`."""
    (path,) = folder.glob(f"picture_*_seed{seed}.png")
    return path


@pytest.fixture
def edit(folders: dict[str, Path], picture: Path, tmp_path: Path) -> Edit:
    """The command `sdist edit` with an editor, quick, writing to tmp_path / output."""

    def run(name: str, output: str, *more: str, model: Path | None = None) -> int:
        where = ("--model", str(model or folders[name]), "--output", str(tmp_path / output))
        return main(["edit", str(picture), *PROMPTS, "--method", name, *where, "--quiet", "--set", *QUICK[name], *more])

    return run


def error(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sdist: error:")]
    return line


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), np.int16)


# --- every editor ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_editor_is_a_frozen_documented_dataclass_with_a_yaml(name: str) -> None:
    settings = load_settings(name)
    editor = settings.editor
    assert type(editor) is EDITORS.get(name)
    assert type(editor).__doc__
    assert type(editor).__module__.rsplit(".", 1)[-1] == name
    loaded = ("model", "variant", "model_config", "vae", "lora", "embedding", "device", "precision")
    placed = ("size", "keep_background", "output_size", "crop", "composition")
    assert tuple(settings.plain()) == (*loaded, *placed, "seed", "editor")
    assert resolve(json.loads(json.dumps(settings.plain())), "again") == settings
    for field in fields(editor):
        with pytest.raises(FrozenInstanceError):
            setattr(editor, field.name, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_of_before_names_the_same_editor(name: str) -> None:
    plain = load_settings(name).plain()
    assert resolve({**plain, "baseline": plain.pop("editor")}, "card") == load_settings(name)
    assert "editor" not in load_settings("lusd").plain()


@pytest.mark.parametrize("name", NAMES)
def test_edit_and_replay(name: str, edit: Edit, tmp_path: Path, capsys) -> None:
    assert edit(name, "out", "--seeds", "2") == 0
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} == {
        f"picture_{name}_{SLUG}_seed{s}{end}" for s in (0, 1) for end in (".png", "_panel.png", ".json")
    }
    assert not np.array_equal(pixels(made(out)), pixels(made(out, 1)))
    card = read_json(made(out, 1).with_suffix(".json"))
    assert card["settings"]["editor"]["name"] == name
    assert (card["job"]["seed"], card["job"]["instruction"], card["words"]) == (1, None, [])
    assert card["size"] == [32, 32]
    assert edit(name, "again", "--set", "seed=1") == 0
    assert np.array_equal(pixels(made(out, 1)), pixels(made(tmp_path / "again", 1)))
    capsys.readouterr()
    assert main(["replay", str(made(out, 1)), "--quiet"]) == 0
    assert capsys.readouterr().out == "identical\n"


@pytest.mark.parametrize("name", NAMES)
def test_run_resumes_and_company_changes_nothing(
    name: str, edit: Edit, folders: dict[str, Path], picture: Path, tmp_path: Path, capsys
) -> None:
    images = tmp_path / "input" / "images"
    images.mkdir(parents=True)
    Image.open(picture).transpose(Image.Transpose.ROTATE_180).save(images / "other.png")
    (images / "picture.png").write_bytes(picture.read_bytes())
    rows = [["img_path", "source_prompt", "target_prompt"], *([n, PROMPTS[1], PROMPTS[3]] for n in ("other.png", "picture.png"))]
    with (tmp_path / "input" / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    arguments = ["run", "--input", str(tmp_path / "input"), "--output", str(tmp_path / "out"), "--model", str(folders[name])]
    arguments += ["--quiet", "--set", *QUICK[name], "--method"]
    assert main([*arguments, name]) == 0
    assert "2 of 2 made, 0 already there" in capsys.readouterr().out
    assert edit(name, "alone") == 0
    assert np.array_equal(pixels(tmp_path / "out" / "picture_seed0.png"), pixels(made(tmp_path / "alone")))
    (tmp_path / "out" / "other_seed0.png").unlink()
    assert main([*arguments, name]) == 0
    assert "1 of 2 made, 1 already there" in capsys.readouterr().out
    first = fields(EDITORS.get(name))[-1].name
    changed = {"use_intersect_mask": "false"}[first]
    assert main([*arguments, name, "--set", f"editor.{first}={changed}"]) == 2
    assert "other_seed0.png was made with different editor" in error(capsys)
    assert main([*arguments[: arguments.index("--quiet")], "--method", "dds", "--quiet"]) == 2
    assert re.search("was made with different .*regularizers, .*optimizer", capsys.readouterr().err)
    pair = load_pairs(tmp_path / "input")
    assert [path.name for path in find_results(tmp_path / "out", pair).values() if path] == [
        "other_seed0.png",
        "picture_seed0.png",
    ]


def load_pairs(folder: Path) -> list:
    from sdist.datasets.base import load_dataset

    return load_dataset(f"index:{folder}")


@pytest.mark.parametrize("name", NAMES)
def test_a_velocity_model_and_a_longer_side(name: str, edit: Edit, tmp_path: Path, picture: Path) -> None:
    Image.open(picture).resize((72, 40)).save(picture)
    model = save_tiny_pipeline(tmp_path / "v", "v_prediction", down=("CrossAttnDownBlock2D",) * 3)
    assert edit(name, "out", model=model) == 0
    assert Image.open(made(tmp_path / "out")).size == (32, 32)  # LEDITS++ takes multiples of 32 alone


# --- what is refused ---------------------------------------------------------------------------------------------------

FOREIGN = {
    "a loss": (["--set", "loss=sds"], "loss: no setting of the editor ledits_pp; it has model, variant, "),
    "compile": (["--compile", "auto"], "compile: no setting of the editor ledits_pp"),
    "words": (["--words", "hat"], "ledits_pp reads no words"),
    "a mask": (["--mask", "mask.png"], "ledits_pp reads no mask: leave it out, or use a method that reads it, such as lusd"),
    "a trace": (["--record", "TRACE"], "--record: of editors whose steps can be logged"),
    "a log": (["--log", "csv"], "--log: of editors whose steps"),
    "lanes": (["--batch", "2"], "--parallel: ledits_pp edits one image at a time"),
    "an instruction": (["--instruction", "add a hat"], "ledits_pp reads no instruction"),
    "an unknown field": (["--set", "editor.skipp=0"], "did you mean 'skip'"),
    "a word for a number": (["--set", "editor.skip=high"], "skip must be a number"),
    "too many steps": (["--set", "editor.num_inversion_steps=2000"], "asks for 2400 steps, this model has 1000"),
    "a long prompt": (["--target", "cat " * 40], "this model reads 24"),
    "infinity": (["--set", "editor.edit_guidance_scale=1e38"], "not finite"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_an_editor_has_no_use_for_is_refused(what: str, edit: Edit, tmp_path: Path, capsys) -> None:
    given, message = FOREIGN[what]
    Image.new("L", (32, 32), 255).save(tmp_path / "mask.png")
    given = [{"TRACE": str(tmp_path / "trace"), "mask.png": str(tmp_path / "mask.png")}.get(word, word) for word in given]
    assert edit("ledits_pp", "out", *given) == 2
    assert message in error(capsys)
    assert not list(tmp_path.rglob("*seed0.png"))
    assert not (tmp_path / "trace").exists()


BAD = {
    "ledits_pp": [
        ("skip=1", "skip in 0..1 (1 excluded)"),
        ("edit_threshold=1.5", "edit_threshold is a quantile, 0..1, got 1.5"),
        ("concepts=both", "concepts"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "given", "message"), [(n, *case) for n, cases in BAD.items() for case in cases])
def test_bad_values_are_named(name: str, given: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        load_settings(name, [f"editor.{given}"])
    assert message in str(raised.value)


def test_a_method_reads_no_instruction_and_has_no_editor(edit: Edit, folders: dict[str, Path], picture: Path, capsys) -> None:
    arguments = ["edit", str(picture), *PROMPTS, "--model", str(folders["shallow"]), "--output", str(picture.parent / "out")]
    assert main([*arguments, "--instruction", "add a hat"]) == 2
    assert "lusd reads no instruction: leave it out, or use a method that reads it, such as instruct_pix2pix" in error(capsys)
    assert main([*arguments, "--set", "baseline=ledits_pp"]) == 2
    assert "regularizers, filter, normalizer, gamma, optimizer: no setting of the editor ledits_pp" in error(capsys)
    assert main([*arguments, "--set", "editor.skip=0.5"]) == 2
    assert "editor needs a name" in error(capsys)


def test_a_model_without_the_attention_that_is_needed_is_named(edit: Edit, folders: dict[str, Path], capsys) -> None:
    assert edit("ledits_pp", "out", model=folders["shallow"]) == 2
    assert "cross-attention at 1/4 of the latent's side, this model has it at ['1/1', '1/2']" in error(capsys)


def test_ledits_pp_without_the_mask_that_a_model_lacks(edit: Edit, folders: dict[str, Path]) -> None:
    assert edit("ledits_pp", "out", "editor.use_intersect_mask=false", model=folders["shallow"]) == 0


def test_models_that_the_pipelines_would_misread(edit: Edit, tmp_path: Path, capsys) -> None:
    assert edit("ledits_pp", "out", model=save_tiny_pipeline(tmp_path / "shifted", shift=0.1)) == 2
    assert "has a VAE with shift_factor, which diffusers' pipeline does not read" in error(capsys)
    config = save_tiny_pipeline(tmp_path / "normalized") / "vae" / "config.json"
    config.write_text(json.dumps({**read_json(config), "latents_mean": [0.1] * 4, "latents_std": [2.0] * 4}))
    assert edit("ledits_pp", "out", model=tmp_path / "normalized") == 2
    assert "has a VAE with latents_mean, latents_std, which" in error(capsys)
    assert edit("ledits_pp", "out", model=save_pipeline(tmp_path / "sdxl", "sdxl")) == 2
    assert "has two text encoders" in error(capsys)


# --- each one's own ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ("a cat", "a cat wearing a hat", (["wearing a hat"], [])),
        ("a cat in the snow", "a dog in the snow", (["dog"], ["cat"])),
        ("a cat and a dog", "a cat", ([], ["and a dog"])),
        ("", "a cat", (["a cat"], [])),
    ],
)
def test_ledits_pp_adds_and_removes_what_differs(source: str, target: str, told: tuple) -> None:
    prompts = Prompts(source, target)
    assert LeditsPP(concepts="difference").concepts_of(prompts) == told
    assert LeditsPP().concepts_of(prompts) == ([target], [])


def test_ledits_pp_needs_a_difference(edit: Edit, capsys) -> None:
    assert edit("ledits_pp", "out", "editor.concepts=difference", "--source", "a cat!", "--target", "a cat") == 2
    assert "no word differs between 'a cat!' and 'a cat': set concepts to target" in error(capsys)


@pytest.fixture(scope="module")
def deep(folders: dict[str, Path]) -> Backbone:
    return load_method(load_settings("ledits_pp", model=str(folders["ledits_pp"]), device="cpu")).model


def test_ledits_pp_counts_a_concepts_own_tokens(deep: Backbone) -> None:
    pipeline = LeditsPP().pipeline(
        dict(deep.scheduler.config), vae=deep.vae, text_encoder=deep.text.encoders[0], tokenizer=deep.text.tokenizers[0],
        unet=deep.denoiser, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.batch_size = 1
    options = {"device": "cpu", "num_images_per_prompt": 1, "enable_edit_guidance": True}
    assert pipeline.encode_prompt(editing_prompt=["a red hat", "dog"], **options)[2] == [3, 1]
    assert pipeline.encode_prompt(editing_prompt="a hat", **options)[2] == [2]


@pytest.mark.parametrize("options", [{"concepts": "difference"}, {"use_intersect_mask": False}, {"edit_warmup_steps": 2}])
def test_ledits_pp_leaves_the_network_as_it_was(deep: Backbone, picture: Path, options: dict) -> None:
    settings = load_settings("ledits_pp")
    job = LoadedMethod(settings, deep).prepare(Request(picture, "a cat in the snow", "a dog in the snow"))
    kinds = {name: type(processor) for name, processor in deep.denoiser.attn_processors.items()}
    plain, other = (
        LeditsPP(num_inversion_steps=4, edit_threshold=0.5, **more).edit(deep, [job], Observers())[0] for more in ({}, options)
    )
    assert not np.array_equal(plain.image, other.image)
    assert {name: type(processor) for name, processor in deep.denoiser.attn_processors.items()} == kinds


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_pipeline_in_half_precision(name: str, edit: Edit, folders: dict[str, Path], tmp_path: Path) -> None:
    backbone = load_method(load_settings(name, model=str(folders[name]), device="cpu", precision="bf16")).model
    assert {network.dtype for network in backbone.networks} == {torch.bfloat16}
    assert edit(name, "half", "--precision", "bf16") == 0
    assert read_json(made(tmp_path / "half").with_suffix(".json"))["model"]["precision"] == "bfloat16"
