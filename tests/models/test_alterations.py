"""What is found in networks that neither weights nor configuration say; pipelines with changed networks are in tests/pipeline."""

from types import SimpleNamespace

import pytest
from torch import nn

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
    network[0].processor = type("AttnProcessor2_0", (), {"_attention_backend": SimpleNamespace(value="flash")})()
    assert alterations({"unet": network}, {}) == ["unet: attention backend flash at 0"]


def test_nothing_is_found_in_a_loaded_model(tiny: Backbone, tiny_v: Backbone) -> None:
    assert tiny.changes == tiny_v.changes == []


def test_a_familys_own_classes_are_no_change() -> None:
    kind = type("Own", (nn.Linear,), {"forward": lambda self, x: x})
    network = kind(1, 1)
    assert alterations({"transformer": network}, {}) != []
    assert alterations({"transformer": network}, {"transformer": f"{__name__}.Own"}) == []
