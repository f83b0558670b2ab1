"""A whole model in one file: it is the folder's, it edits and is replayed, and what is wrong with it is one line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.architectures import save_pipeline
from experiments.original_format import save_original
from sdist import ScoreDistillationPipeline, UserError
from sdist.cli import main
from sdist.models.catalogue import FLOW, OF_TINYWORLD, STABLE_DIFFUSION, find_model
from sdist.models.loading import load_backbone
from sdist.models.options import LoadOptions
from sdist.models.precision import measure
from sdist.models.single_file import config_folder

QUICK = ("--set", "scale.threshold=0.01", "scale.cross_level=1", "scale.self_level=0", "--steps", "2")


@pytest.fixture(scope="session")
def configs(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline without its weights."""
    ignored = shutil.ignore_patterns("*.safetensors")
    return shutil.copytree(tiny_folder, tmp_path_factory.mktemp("configs") / "tiny", ignore=ignored)


@pytest.fixture(scope="session")
def file(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_original(tiny_folder, tmp_path_factory.mktemp("file") / "mine.safetensors")


def test_a_file_is_the_model_of_its_folder(file: Path, configs: Path, tiny_folder: Path) -> None:
    model, folder = (
        load_backbone(str(file), "cpu", options=LoadOptions(config=str(configs))),
        load_backbone(str(tiny_folder), "cpu"),
    )
    assert model.fingerprint == folder.fingerprint
    assert model.configuration == folder.configuration
    assert model.changes == []
    assert [type(network) for network in model.networks] == [type(network) for network in folder.networks]
    pixels = torch.rand(1, 3, 32, 32)
    assert torch.equal(model.encode(pixels), folder.encode(pixels))
    assert torch.equal(model.embed(["a cat"]).tokens, folder.embed(["a cat"]).tokens)


@pytest.mark.parametrize("name", ["sd21", "sdxl"])
def test_files_of_other_families_are_the_models_of_their_folders(tmp_path: Path, name: str) -> None:
    """With open_clip's text encoder, and with two."""
    folder = save_pipeline(tmp_path / "folder", name)
    path = save_original(folder, tmp_path / "mine.safetensors")
    whole = load_backbone(str(folder), "cpu")
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    model = load_backbone(str(path), "cpu", options=LoadOptions(config=str(folder)))
    assert type(model) is type(whole)
    assert model.fingerprint == whole.fingerprint
    assert model.configuration == whole.configuration


def test_a_file_edits_and_is_replayed(file: Path, configs: Path, picture: Path, tmp_path: Path, capsys) -> None:
    prompts = ("--source", "a cat", "--target", "a cat wearing a hat")
    where = ("--model", str(file), "--model-config", str(configs), "--output", str(tmp_path / "out.png"))
    assert main(["edit", str(picture), *prompts, *where, *QUICK]) == 0
    card = json.loads((tmp_path / "out.json").read_text())
    assert (card["settings"]["model"], card["settings"]["model_config"]) == (str(file), str(configs))
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "out.png")]) == 0
    assert capsys.readouterr().out == "identical\n"


def test_half_precision_in_a_file_is_widened(configs: Path, tiny_folder: Path, tmp_path: Path) -> None:
    half = save_original(tiny_folder, tmp_path / "half.safetensors", torch.float16)
    assert load_backbone(str(half), "cpu", options=LoadOptions(config=str(configs))).dtype == torch.float32


def test_a_model_is_no_part_of_its_file(tiny_folder: Path, configs: Path, tmp_path: Path) -> None:
    path = save_original(tiny_folder, tmp_path / "mine.safetensors")
    model = load_backbone(str(path), "cpu", options=LoadOptions(config=str(configs)))
    before = model.embed(["a cat"]).tokens
    with path.open("r+b") as weights:  # as a program does that writes another model there
        weights.write(bytes(path.stat().st_size))
    assert torch.equal(model.embed(["a cat"]).tokens, before)


@pytest.mark.parametrize(
    "part", ["model.diffusion_model.out.2.bias", "cond_stage_model.transformer.text_model.final_layer_norm.bias"]
)
def test_a_weight_that_is_missing_is_named(file: Path, configs: Path, tmp_path: Path, part: str) -> None:
    weights = load_file(file)
    del weights[part]
    save_file(weights, tmp_path / "less.safetensors")
    with pytest.raises(UserError, match=r"(unet|text_encoder) lacks 1 weights of .*bias among them"):
        load_backbone(str(tmp_path / "less.safetensors"), "cpu", options=LoadOptions(config=str(configs)))


def test_a_part_that_is_missing_is_the_folders_or_is_named(file: Path, configs: Path, tiny_folder: Path, tmp_path: Path) -> None:
    save_file({key: value for key, value in load_file(file).items() if "first_stage" not in key}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"the file has no vae .* nor has .*: --model-config names a whole pipeline"):
        load_backbone(str(tmp_path / "x.safetensors"), "cpu", options=LoadOptions(config=str(configs)))
    whole = load_backbone(str(tmp_path / "x.safetensors"), "cpu", options=LoadOptions(config=str(tiny_folder)))
    assert whole.fingerprint == load_backbone(str(tiny_folder), "cpu").fingerprint


def test_where_no_configuration_is_to_be_had_it_says_what_to_do(file: Path) -> None:
    with pytest.raises(UserError, match=r"those of sd15 are out of reach .*--model-config names a folder"):
        load_backbone(str(file), "cpu")


def test_what_is_cut_short_or_is_no_model_is_said(file: Path, configs: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cut.safetensors is damaged or cut short"):
        load_backbone(str(tmp_path / "cut.safetensors"), "cpu", options=LoadOptions(config=str(configs)))
    assert config_folder(str(configs)) == configs
    assert find_model(str(file)).sources == (str(file),)


def test_a_pipeline_from_a_file(file: Path, configs: Path, picture: Path) -> None:
    pipe = ScoreDistillationPipeline.from_single_file(file, config=configs)
    scale = {"threshold": 0.01, "cross_level": 1, "self_level": 0}
    (card,) = pipe("a cat wearing a hat", picture, "a cat", num_inference_steps=2, settings={"scale": scale}).cards
    assert (card["settings"]["model"], card["settings"]["model_config"]) == (str(file), str(configs))
    with pytest.raises(UserError, match="is a single file: from_single_file reads it"):
        ScoreDistillationPipeline.from_pretrained(file)


def test_a_file_has_the_scale_of_what_its_weights_or_its_configurations_say(file: Path, tmp_path: Path) -> None:
    name = "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"
    save_file({name: torch.zeros(1)}, tmp_path / "flow.safetensors")
    assert find_model(str(tmp_path / "flow.safetensors")).scale == FLOW
    assert find_model(str(file)).scale == STABLE_DIFFUSION
    assert find_model(str(file), "tinyworld").scale == OF_TINYWORLD
    (tmp_path / "empty.safetensors").write_bytes(b"")
    assert find_model(str(tmp_path / "empty.safetensors")).scale == STABLE_DIFFUSION


def test_a_file_is_read_in_the_format_that_runs_and_known_by_its_own_values(
    file: Path, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its mapping is made anew after every weight."""
    monkeypatch.setattr("sdist.models.stored_weights.MAPPED", 0)
    options = LoadOptions(config=str(configs))
    half, whole = (load_backbone(str(file), "cpu", dtype=dtype, options=options) for dtype in (torch.bfloat16, torch.float32))
    assert (half.dtype, half.vae.dtype) == (torch.bfloat16, torch.float32)
    assert half.fingerprint == whole.fingerprint
    assert all(torch.equal(half.from_files[name], weight) for name, weight in whole.denoiser.named_parameters())
    assert measure(half, torch.bfloat16) == measure(whole, torch.bfloat16)


def test_a_part_of_a_model_is_said_to_be_one(file: Path, configs: Path, tmp_path: Path) -> None:
    save_file({key: value for key, value in load_file(file).items() if "first_stage" in key}, tmp_path / "vae.safetensors")
    with pytest.raises(UserError, match=r"vae.safetensors has no unet: it is a part of a model, or a LoRA \(--lora\)"):
        load_backbone(str(tmp_path / "vae.safetensors"), "cpu", options=LoadOptions(config=str(configs)))
