"""How a model's family is found, and that a new one is one class: a flow of a few weights, which edits a picture."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from sdist.cli import main
from sdist.diffusion import flow_scales
from sdist.errors import UserError
from sdist.models.base import Backbone
from sdist.models.folders import families_of, matching
from sdist.models.loading import assemble, load_backbone
from sdist.models.stable_diffusion import StableDiffusion
from sdist.models.stable_diffusion_xl import StableDiffusionXL
from sdist.models.text import ClipText, PromptEncoder
from sdist.prediction import SOURCE, TARGET, predict
from sdist.registry import FAMILIES

from ..conftest import make_draw, progress, tiny_edit


class TinyFlow(ModelMixin, ConfigMixin):
    """A velocity that depends on the latents, the level, the prompt and the guidance."""

    @register_to_config
    def __init__(self, sample_size: int = 8) -> None:
        super().__init__()
        self.image, self.text = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(16, 4)

    def forward(self, z, s, tokens, guidance, return_dict: bool = True) -> tuple[torch.Tensor]:
        return (self.image(z) + (self.text(tokens.mean(1)) * (guidance + s)[:, None])[..., None, None],)


class Flow(Backbone):
    denoiser_name = "transformer"
    components: Mapping[str, str] = {
        "transformer": f"{__name__}.TinyFlow",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    }
    guidance = "embedded"
    prediction_type = "flow"
    last_timestep = 1000
    multiple = 8  # two latents

    def make_text(self, parts: Mapping[str, Any], options: Mapping[str, Any]) -> PromptEncoder:
        return ClipText([parts["text_encoder"]], [parts["tokenizer"]])

    def scales(self, t, size):
        return flow_scales(t)

    def denoise(self, z_t, t, text, guidance):
        return self.forward(z_t, t / 1000, text.tokens, guidance)


@pytest.fixture
def flow_folder(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline with another denoiser, whose family is registered for the time of a test."""
    folder = tmp_path / "flow"
    shutil.copytree(tiny_folder, folder, ignore=shutil.ignore_patterns("unet"))
    torch.manual_seed(0)
    TinyFlow().save_pretrained(folder / "transformer")
    change(folder / "scheduler" / "scheduler_config.json", _class_name="FlowMatchEulerDiscreteScheduler")
    scheduler = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    change(folder / "model_index.json", unet=None, transformer=["diffusers", "TinyFlow"], scheduler=scheduler)
    FAMILIES.names()
    monkeypatch.setattr(FAMILIES, "_classes", {**FAMILIES._classes, "tiny_flow": Flow})
    return folder


def change(path: Path, **values: Any) -> None:
    data = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))


def test_a_new_family_is_loaded_by_its_denoiser_and_predicts_a_flow(flow_folder: Path) -> None:
    flow = load_backbone(str(flow_folder), "cpu")
    assert type(flow) is Flow
    assert (flow.channels, flow.factor, flow.native_side) == (4, 4, 32)
    draw = make_draw(flow, 2, [1000, 400], dtype=torch.float32)
    edit, guided = tiny_edit(flow, 2), TARGET.guided(3.0)
    with torch.no_grad():
        p = predict(flow, edit.source, edit, draw, [guided, SOURCE], (), progress(2))
    a, g = draw.alpha[:, None, None, None], draw.sigma[:, None, None, None]
    assert (a[0], g[0]) == (0, 1)
    torch.testing.assert_close(a * p.clean[guided] + g * p.eps[guided], a * edit.source + g * draw.noise)
    tokens = edit.text["target"].tokens
    expected = flow.denoiser(draw.noise[:1], torch.ones(1), tokens[:1], torch.tensor([3.0]))[0]
    torch.testing.assert_close(p.velocity[guided][:1], expected)


def test_a_new_family_edits_a_picture(flow_folder: Path, picture: Path, tmp_path: Path) -> None:
    command = ["edit", str(picture), "--source", "a cat", "--target", "a dog", "--model", str(flow_folder), "--steps", "2"]
    assert main([*command, "--method", "dds", "--output", str(tmp_path / "out"), "--quiet"]) == 0
    assert list((tmp_path / "out").glob("picture_*seed0.png"))


@pytest.mark.parametrize("method", ["lusd", "cds"])
def test_a_family_without_a_layout_is_one_line_where_attention_is_read(
    flow_folder: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    command = ["edit", str(picture), "--source", "a cat", "--target", "a dog", "--model", str(flow_folder), "--steps", "2"]
    assert main([*command, "--method", method, "--output", str(tmp_path / "out"), "--quiet"]) == 2
    assert "attention of a TinyFlow cannot be read here" in capsys.readouterr().err.strip().splitlines()[-1]


def test_the_multiple_of_a_family_is_asked_of_sizes(flow_folder: Path) -> None:
    with pytest.raises(UserError, match="12 x 16; this model needs both sides divisible by 8"):
        load_backbone(str(flow_folder), "cpu").encode(torch.zeros(1, 3, 16, 12))


def test_an_unknown_denoiser_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "other")
    change(folder / "model_index.json", unet=None, transformer=["diffusers", "SomeTransformer2DModel"])
    message = "SomeTransformer2DModel, which is not known here: have .*UNet2DConditionModel"
    with pytest.raises(UserError, match=message) as raised:
        load_backbone(str(folder), "cpu")
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"the denoiser of this model is Linear of torch\.nn\.modules\.linear, which"):
        assemble({"unet": nn.Linear(1, 1), "vae": None}, "cpu", {})


def test_a_unet_that_reads_something_else_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "other")
    change(folder / "unet" / "config.json", addition_embed_type="image_hint")
    message = (
        r"this UNet2DConditionModel reads something else .*\(inpainting, inpainting_xl, instruct_pix2pix, stable_diffusion, "
    )
    with pytest.raises(UserError, match=message):
        load_backbone(str(folder), "cpu")


def test_the_family_of_a_unet_is_found_by_its_configuration() -> None:
    for config, family in (({}, StableDiffusion), ({"addition_embed_type": "text_time"}, StableDiffusionXL)):
        assert [own for own in (StableDiffusion, StableDiffusionXL) if own.matches(config)] == [family]


@pytest.mark.parametrize("name", ["aaa", "zzz"])
def test_a_family_of_a_package_is_asked_before_those_that_are_here(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Upscaler(StableDiffusion):
        @classmethod
        def matches(cls, config: Mapping[str, Any]) -> bool:
            return config.get("in_channels") == 7

    FAMILIES.names()
    monkeypatch.setattr(FAMILIES, "_classes", {**FAMILIES._classes, name: Upscaler})
    families = families_of({"unet": ["UNet2DConditionModel"]})
    assert matching(families, {"in_channels": 7}) is Upscaler
    assert matching(families, {"in_channels": 4}) is StableDiffusion


def test_components_in_memory_may_be_subclasses_and_compiled(tiny: Backbone) -> None:
    unet = tiny.denoiser
    kind = type("OwnUNet", (type(unet),), {})
    parts = {"vae": tiny.vae, "text_encoder": tiny.text.encoders[0], "tokenizer": tiny.text.tokenizers[0]}
    parts["scheduler"] = tiny.scheduler
    own = kind.from_config(unet.config)
    for denoiser in (own, torch.compile(own, backend="eager")):
        assert type(assemble({**parts, "unet": denoiser}, "cpu", {})) is StableDiffusion
    with pytest.raises(UserError, match="this UNet2DConditionModel needs vae beside it, which the pipeline does not have"):
        assemble({**parts, "unet": own, "vae": None}, "cpu", {})
