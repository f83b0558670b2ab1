"""What is found in networks that neither weights nor configuration say; pipelines with changed networks are in tests/pipeline."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from diffusers import UNet2DConditionModel
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils.parametrizations import spectral_norm
from transformers import CLIPTextModel

from sdist.models.alterations import alterations
from sdist.models.base import Backbone


class Adapted(nn.Linear):
    """As a layer of peft looks."""

    def __init__(self, merged: bool = False, disable_adapters: bool = False, **scaling: float) -> None:
        super().__init__(1, 1)
        self.lora_A = nn.ModuleDict()
        self.scaling, self.active_adapters = scaling, list(scaling)
        self.merged, self.merged_adapters, self.disable_adapters = merged, list(scaling), disable_adapters


Adapted.__module__ = "peft.tuners.lora.layer"


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([Adapted(style=1.0), Adapted(style=1.0)], ["unet: LoRA style (1) at 0 and 1 more"]),
        ([Adapted(style=0.3)], ["unet: LoRA style (0.3) at 0"]),
        ([Adapted(style=1.0), Adapted(style=0.5)], ["unet: LoRA style (1) at 0", "unet: LoRA style (0.5) at 1"]),
        ([Adapted(style=1.0, hat=0.25)], ["unet: LoRA style (1), hat (0.25) at 0"]),
        ([Adapted(disable_adapters=True, style=1.0)], ["unet: LoRA off at 0"]),
        ([Adapted(merged=True, style=1.0)], ["unet: LoRA style fused at 0"]),
    ],
)
def test_adapters_and_their_switches_are_told_apart(layers: list[nn.Module], said: list[str]) -> None:
    assert alterations({"unet": nn.Sequential(*layers)}, {}) == said


def test_backends_of_attention_are_named() -> None:
    network = nn.Sequential(nn.Linear(1, 1))
    network[0].processor = type(
        "AttnProcessor2_0", (), {"_attention_backend": SimpleNamespace(value="flash"), "__module__": "diffusers"}
    )()
    assert alterations({"unet": network}, {}) == ["unet: attention backend flash at 0"]


def test_a_processor_is_known_by_its_library_and_not_by_its_name_alone() -> None:
    network = nn.Sequential(nn.Linear(1, 1))
    network[0].processor = type("AttnProcessor2_0", (), {})()
    assert alterations({"unet": network}, {}) == [f"unet: attention by AttnProcessor2_0 of {__name__} at 0"]


CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a layer": (lambda unet: setattr(unet, "conv_act", nn.Identity()), "SiLU replaced by Identity at conv_act"),
    "a setting": (
        lambda unet: setattr(unet.mid_block.resnets[0], "output_scale_factor", 3.0),
        "output_scale_factor=3.0 at mid_block.resnets.0",
    ),
    "a switch": (lambda unet: setattr(unet.time_proj, "flip_sin_to_cos", False), "flip_sin_to_cos=False at time_proj"),
    "a parametrization": (lambda unet: spectral_norm(unet.conv_in), "Conv2d replaced by ParametrizedConv2d at conv_in"),
    "a block": (lambda unet: setattr(unet, "mid_block", None), "UNetMidBlock2DCrossAttn taken out at mid_block"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_network_is_made_of_is_held_against_its_configuration(tiny_folder: Path, name: str) -> None:
    change, said = CHANGES[name]
    unet = UNet2DConditionModel.from_pretrained(tiny_folder, subfolder="unet")
    assert alterations({"unet": unet}, {}) == []
    change(unet)
    assert f"unet: {said}" in alterations({"unet": unet}, {})


OF_TEXT: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a setting": (
        lambda encoder: setattr(encoder.encoder.layers[0].self_attn, "scale", 3.0),
        "scale=3.0 at encoder.layers.0.self_attn",
    ),
    "an activation": (
        lambda encoder: setattr(encoder.encoder.layers[0].mlp, "activation_fn", nn.ReLU()),
        "QuickGELUActivation replaced by ReLU at encoder.layers.0.mlp.activation_fn",
    ),
    "a layer taken out": (lambda encoder: encoder.encoder.layers.pop(0), "CLIPEncoderLayer taken out at encoder.layers.0"),
    "other embeddings": (
        lambda encoder: encoder.set_input_embeddings(nn.Embedding(20, 16)),
        "num_embeddings=20 at embeddings.token_embedding",
    ),
}


@pytest.mark.parametrize("name", OF_TEXT)
def test_a_text_encoder_is_held_against_its_configuration(tiny_folder: Path, name: str) -> None:
    change, said = OF_TEXT[name]
    encoder = CLIPTextModel.from_pretrained(tiny_folder, subfolder="text_encoder")
    encoder.resize_token_embeddings(600)  # which its configuration then says
    assert alterations({"text_encoder": encoder}, {}) == []
    change(encoder)
    assert f"text_encoder: {said}" in alterations({"text_encoder": encoder}, {})


def test_hooks_on_every_module_are_named() -> None:
    handle = register_module_forward_hook(lambda *_: None)
    found = alterations({"unet": nn.Linear(1, 1)}, {})
    handle.remove()
    assert len(found) == 1
    assert found[0].endswith("on every module of torch")


def test_nothing_is_found_in_a_loaded_model(tiny: Backbone, tiny_v: Backbone) -> None:
    assert tiny.changes == tiny_v.changes == []


def test_a_familys_own_classes_are_no_change() -> None:
    kind = type("Own", (nn.Linear,), {"forward": lambda self, x: x})
    network = kind(1, 1)
    assert alterations({"transformer": network}, {}) != []
    assert alterations({"transformer": network}, {"transformer": f"{__name__}.Own"}) == []
