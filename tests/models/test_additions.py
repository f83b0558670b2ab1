"""LoRA, words of textual inversion, another autoencoder: what they make of the weights, and that cards and replay know them."""

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

import sdist
from experiments.original_format import autoencoder_name, save_original
from sdist import UserError
from sdist.cli import main
from sdist.config.build import load_settings
from sdist.editors.loading import ModelCache, load_method
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.models.lora import weight_of
from sdist.models.options import LoadOptions

from ..need import need

need("peft")

QUICK = ("--set", "scale.threshold=0.01", "scale.cross_level=1", "scale.self_level=0", "--steps", "2")
LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
ENCODER = "layers.0.self_attn.q_proj"


def load(model: Path, **options) -> Backbone:
    return load_backbone(str(model), "cpu", options=LoadOptions(**options))


def low_rank(seed: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two matrices of rank 2."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, columns, generator=generator), torch.randn(rows, 2, generator=generator)


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """In the names of diffusers, of one layer of the UNet and one of the text encoder."""
    (down, up), (text_down, text_up) = low_rank(0, 8, 8), low_rank(1, 16, 16)
    names = {f"unet.{LAYER}": (down, up), f"text_encoder.text_model.encoder.{ENCODER}": (text_down, text_up)}
    weights = {
        f"{name}.{end}.weight": w for name, pair in names.items() for end, w in zip(("lora_A", "lora_B"), pair, strict=True)
    }
    save_file(weights, tmp_path / "style.safetensors")
    return tmp_path / "style.safetensors"


@pytest.fixture
def kohya(tmp_path: Path) -> Path:
    """In the names of kohya's scripts, with an alpha of half the rank."""
    down, up = low_rank(2, 8, 8)
    name = f"lora_unet_{LAYER.replace('.', '_')}"
    save_file(
        {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(1.0)},
        tmp_path / "k.safetensors",
    )
    return tmp_path / "k.safetensors"


@pytest.fixture
def word(tmp_path: Path) -> Path:
    """Three vectors of one word, whose name is the file's."""
    save_file({"emb_params": torch.randn(3, 16, generator=torch.Generator().manual_seed(0))}, tmp_path / "mycat.safetensors")
    return tmp_path / "mycat.safetensors"


def test_loras_are_added_to_the_weights_and_leave_nothing_else(
    tiny_folder: Path, lora: Path, kohya: Path, recwarn: pytest.WarningsRecorder
) -> None:
    plain, model = load(tiny_folder), load(tiny_folder, loras=(f"{lora}:0.5", str(kohya)))
    (down, up), (text_down, text_up), (k_down, k_up) = low_rank(0, 8, 8), low_rank(1, 16, 16), low_rank(2, 8, 8)
    change = model.denoiser.get_submodule(LAYER).weight - plain.denoiser.get_submodule(LAYER).weight
    torch.testing.assert_close(change, 0.5 * up @ down + 0.5 * k_up @ k_down, rtol=1e-4, atol=1e-5)
    name = next(name for name, _ in plain.text.encoders[0].named_modules() if name.endswith(ENCODER))
    change = model.text.encoders[0].get_submodule(name).weight - plain.text.encoders[0].get_submodule(name).weight
    torch.testing.assert_close(change, 0.5 * text_up @ text_down, rtol=1e-4, atol=1e-5)
    same = dict(plain.denoiser.named_parameters())
    assert model.changes == []
    assert {name for name, p in model.denoiser.named_parameters() if not torch.equal(p, same[name])} == {f"{LAYER}.weight"}
    assert not any(p.requires_grad for p in model.denoiser.parameters())
    assert dict(model.scheduler.config) == dict(plain.scheduler.config)
    assert not any("peft_config" in str(warning.message) for warning in recwarn)


def test_half_precision_is_that_of_the_sum(tiny_folder: Path, lora: Path) -> None:
    settings = [load_settings("dds", [f"lora=[{lora}]"], model=str(tiny_folder), precision=p) for p in ("fp32", "bf16")]
    exact, half = (load_method(each).model for each in settings)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half.denoiser.get_submodule(LAYER).weight, exact.denoiser.get_submodule(LAYER).weight.bfloat16())
    assert half.fingerprint == exact.fingerprint != load(tiny_folder).fingerprint


def test_a_word_has_all_of_its_vectors(tiny_folder: Path, word: Path) -> None:
    plain, model = load(tiny_folder), load(tiny_folder, embeddings=(str(word), f"{word}:<dog>"))
    first = len(plain.text.tokenizers[0])
    assert model.text.token_ids("a mycat")[2:5] == [first, first + 1, first + 2]
    assert model.text.token_ids("a <dog>")[2:5] == [first + 3, first + 4, first + 5]
    rows = model.text.encoders[0].get_input_embeddings().weight
    assert torch.equal(rows[first : first + 3], load_file(word)["emb_params"])
    assert torch.equal(rows[:first], plain.text.encoders[0].get_input_embeddings().weight[:first])
    assert set(model.configuration["words"]) == {"mycat", "mycat_1", "mycat_2", "<dog>", "<dog>_1", "<dog>_2"}


@pytest.mark.parametrize("kind", ["folder", "part of a pipeline", "file", "original file"])
def test_another_autoencoder(tiny_folder: Path, tmp_path: Path, kind: str) -> None:
    vae = AutoencoderKL.from_pretrained(tiny_folder / "vae")
    with torch.no_grad():
        vae.decoder.conv_out.bias += 1
    places = {"folder": tmp_path / "vae", "part of a pipeline": tmp_path, "file": tmp_path / "f.safetensors"}
    place = places.get(kind, tmp_path / "o.safetensors")
    vae.save_pretrained(tmp_path / "vae")
    weights = {key: value.contiguous() for key, value in vae.state_dict().items()}
    save_file(weights, tmp_path / "f.safetensors")
    square = {key: w[:, :, None, None] if "attentions" in key and w.dim() == 2 else w for key, w in weights.items()}
    save_file({autoencoder_name(key, 3): w.contiguous() for key, w in square.items()}, tmp_path / "o.safetensors")
    model = load(tiny_folder, vae=str(place))
    assert torch.equal(model.vae.decoder.conv_out.bias, vae.decoder.conv_out.bias)
    assert model.configuration["scaling_factor"] == 0.5
    ((name, digest),) = model.configuration["added"].items()
    assert re.fullmatch(r"vae \S+\.safetensors", name)
    assert len(digest) == 16


def test_an_edit_with_all_of_them_is_replayed(
    tiny_folder: Path, lora: Path, word: Path, picture: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a single file, from another folder; and it is another image without them."""
    file = save_original(tiny_folder, tmp_path / "mine.safetensors")
    AutoencoderKL.from_pretrained(tiny_folder / "vae").save_pretrained(tmp_path / "vae")
    monkeypatch.chdir(tmp_path)
    prompts = ("--source", "a cat", "--target", "a mycat wearing a hat", "--words", "hat", *QUICK)
    model = ("--model", file.name, "--model-config", str(tiny_folder), "--output", "out.png")
    more = ("--lora", f"{lora.name}:0.7", "--embedding", word.name, "--vae", "vae")
    assert main(["edit", str(picture), *prompts, *model, *more]) == 0
    card = json.loads((tmp_path / "out.json").read_text())
    assert card["settings"]["lora"] == [f"{lora}:0.7"]
    assert card["settings"]["embedding"] == [str(word)]
    assert [name.split()[0] for name in card["model"]["configuration"]["added"]] == ["vae", "lora", "embedding"]
    monkeypatch.chdir("/")
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "out.png")]) == 0
    assert capsys.readouterr().out == "identical\n"
    lora.unlink()
    assert main(["replay", str(tmp_path / "out.png")]) == 2
    assert f"lora {lora} does not exist" in capsys.readouterr().err


def test_a_run_has_them_too(tiny_folder: Path, lora: Path, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "images").mkdir(parents=True)
    picture.rename(tmp_path / "in" / "images" / "picture.png")
    (tmp_path / "in" / "index.csv").write_text("img_path,source_prompt,target_prompt\npicture.png,a cat,a dog\n")
    arguments = [
        "run",
        "--input",
        str(tmp_path / "in"),
        "--output",
        str(tmp_path / "out"),
        "--model",
        str(tiny_folder),
        "--method",
        "dds",
    ]
    assert main([*arguments, "--steps", "1", "--lora", str(lora), "--lora", f"{lora}:0.1"]) == 0
    (file,) = tmp_path.glob("out/*_seed0.json")
    assert json.loads(file.read_text())["settings"]["lora"] == [str(lora), f"{lora}:0.1"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ({"x.weight": (2, 2)}, {"loras": ("F",)}, "is not of this model|changes no weight of this model"),
        (
            {f"unet.{LAYER}.lora_A.weight": (2, 99), f"unet.{LAYER}.lora_B.weight": (99, 2)},
            {"loras": ("F",)},
            "is not of this model",
        ),
        ({"emb_params": (2, 99)}, {"embeddings": ("F",)}, "vectors of width 99, this model's text_encoder is one of width 16"),
        ({"emb_params": (2, 16)}, {"embeddings": ("F:cat</w>",)}, "cat</w> is a token already"),
        ({"clip_g": (2, 16)}, {"embeddings": ("F",)}, "this model's text_encoder_2 is none"),
        ({"a": (2, 16), "b": (2, 16)}, {"embeddings": ("F",)}, r"has 2 tensors \(a, b, ...\): it must have one"),
        ({"x": (2, 2)}, {"vae": "F"}, "vae .* the file lacks .* weights of vae|vae .* is no AutoencoderKL"),
    ],
)
def test_what_does_not_fit_is_one_line(tiny_folder: Path, tmp_path: Path, content: dict, options: dict, message: str) -> None:
    file = tmp_path / "f.safetensors"
    save_file({name: torch.ones(shape) for name, shape in content.items()}, file)
    filled = {
        k: v.replace("F", str(file)) if isinstance(v, str) else tuple(t.replace("F", str(file)) for t in v)
        for k, v in options.items()
    }
    with pytest.raises(UserError, match=message) as raised:
        load(tiny_folder, **filled)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("what", ["lora", "embedding", "vae"])
def test_what_is_not_there_or_can_run_code_is_refused(tiny_folder: Path, tmp_path: Path, what: str) -> None:
    name = {"lora": "loras", "embedding": "embeddings"}.get(what, what)
    for place, message in {
        "gone.safetensors": "does not exist",
        "x.pt": "is no .safetensors file",
        "both": "must have one",
    }.items():
        (tmp_path / "x.pt").touch()
        (tmp_path / "both").mkdir(exist_ok=True)
        given = str(tmp_path / place)
        with pytest.raises(UserError, match=f"{what} .*{place} {message}"):
            load(tiny_folder, **{name: given if name == "vae" else (given,)})
    with pytest.raises(UserError, match=r"nobody/nothing: .*HF_HUB_OFFLINE"):
        load(tiny_folder, **{name: "nobody/nothing" if name == "vae" else ("nobody/nothing",)})


def test_a_weight_is_a_number() -> None:
    assert [weight_of(text) for text in ("a.safetensors", "a.safetensors:-0.5", "owner/name:2")] == [1, -0.5, 2]
    with pytest.raises(UserError, match="its weight must be a number, got 'much'"):
        weight_of("a.safetensors:much")


def test_a_file_that_changed_is_read_anew(tiny_folder: Path, lora: Path) -> None:
    cache, settings = ModelCache(kept=2), load_settings("dds", [f"lora=['{lora}:1']"], model=str(tiny_folder))
    first = cache.get(settings).model
    assert cache.get(settings).model is first
    save_file({name: value * 2 for name, value in load_file(lora).items()}, lora)
    lora.touch()
    assert cache.get(settings).model.fingerprint != first.fingerprint


def test_python_takes_them_as_settings(tiny_folder: Path, lora: Path, picture: Path) -> None:
    settings = {"lora": [f"{lora}:0.5"], "scale": {"threshold": 0.01, "cross_level": 1, "self_level": 0}}
    result = sdist.edit(picture, "a cat", "a cat wearing a hat", model=tiny_folder, settings=settings, steps=1, progress=False)
    assert list(result.card["model"]["configuration"]["added"]) == ["lora style.safetensors:0.5"]


def test_a_pipeline_is_loaded_with_them_and_its_card_replays(
    tiny_folder: Path, lora: Path, word: Path, picture: Path, tmp_path: Path, capsys
) -> None:
    vae = tiny_folder / "vae" / "diffusion_pytorch_model.safetensors"
    pipe = sdist.ScoreDistillationPipeline.from_pretrained(tiny_folder, lora=[f"{lora}:0.5"], embedding=[str(word)], vae=str(vae))
    assert torch.equal(
        pipe.unet.get_submodule(LAYER).weight, load(tiny_folder, loras=(f"{lora}:0.5",)).denoiser.get_submodule(LAYER).weight
    )
    settings = {"scale": {"threshold": 0.01, "cross_level": 1, "self_level": 0}}
    (card,) = pipe("a mycat", picture, "a cat", num_inference_steps=2, settings=settings).cards
    kept = {name: card["settings"][name] for name in ("lora", "embedding", "vae")}
    assert kept == {"lora": [f"{lora}:0.5"], "embedding": [str(word)], "vae": str(vae)}
    assert set(card["model"]["configuration"]["added"]) == {f"vae {vae.name}", f"lora {lora.name}:0.5", f"embedding {word.name}"}
    with pytest.raises(UserError, match="lora: the pipeline has its own"):
        pipe("a dog", picture, "a cat", settings={"lora": [str(lora)]})
