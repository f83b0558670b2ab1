"""Networks read weight by weight are those that diffusers loads, in any format, and take no more memory than they then need."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from safetensors.torch import load_file, save_file
from torch import nn

from sdist.benchmark.measure import resident
from sdist.errors import UserError
from sdist.models.base import Backbone
from sdist.models.layerwise import layerwise
from sdist.models.loading import load_backbone
from sdist.models.precision import PROMPTS, Floor, _difference, lower, measure
from sdist.models.stored_weights import Format, load_stored
from sdist.models.text_memory import embed_where_it_fits
from sdist.models.weights import find_weights

PARTS: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}


def load(folder: Path, part: str, form: Format = Format()) -> Any:  # noqa: B008 (it is frozen)
    return load_stored(part, PARTS[part], folder / part, find_weights(folder / part).files, form)[0]


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    pairs = zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True)
    return all(a == b and x.dtype == y.dtype and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_network_is_what_diffusers_loads(tiny_folder: Path, part: str, dtype: torch.dtype) -> None:
    theirs = PARTS[part].from_pretrained(tiny_folder / part, use_safetensors=True, low_cpu_mem_usage=False)
    ours = load(tiny_folder, part, Format(dtype, torch.channels_last))
    assert same(ours, nn.Module.to(theirs, dtype))
    assert {**ours.config, "_name_or_path": None} == {**theirs.config, "_name_or_path": None}
    assert not ours.training
    assert next(p for p in ours.parameters() if p.dim() == 4).is_contiguous(memory_format=torch.channels_last)


def test_shards_are_read_too(tiny_folder: Path, tmp_path: Path) -> None:
    whole = UNet2DConditionModel.from_pretrained(tiny_folder / "unet", use_safetensors=True, low_cpu_mem_usage=False)
    whole.save_pretrained(tmp_path / "unet", max_shard_size="20KB")
    assert len(find_weights(tmp_path / "unet").files) > 2
    assert same(load(tmp_path, "unet"), whole)


def test_attention_of_old_autoencoders_has_other_names(tiny_folder: Path, tmp_path: Path) -> None:
    whole = AutoencoderKL.from_pretrained(tiny_folder / "vae", use_safetensors=True, low_cpu_mem_usage=False)
    whole.save_pretrained(tmp_path / "vae")
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    file, old = tmp_path / "vae" / "diffusion_pytorch_model.safetensors", {}
    for key, value in load_file(file).items():
        for new, former in names.items():
            key = key.replace(f"attentions.0.{new}", f"attentions.0.{former}")  # noqa: PLW2901
        old[key] = value
    assert any("proj_attn" in key for key in old)
    save_file(old, file, {"format": "pt"})
    assert same(load(tmp_path, "vae"), whole)


def test_a_weight_of_another_shape_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    load(tiny_folder, "unet").save_pretrained(tmp_path / "unet")
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(file), "conv_in.bias": torch.zeros(3)}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"unet: conv_in.bias has the shape \(3,\), UNet2DConditionModel has \(8,\) there"):
        load(tmp_path, "unet")


class Computing(ModelMixin, ConfigMixin):
    """Has a table that it computes, as some position embeddings are."""

    @register_to_config
    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(size, size)
        self.register_buffer("table", torch.arange(float(size)), persistent=False)


def test_values_that_no_file_has_are_made_as_always(tmp_path: Path) -> None:
    whole = Computing()
    whole.save_pretrained(tmp_path)
    ours, _ = load_stored("transformer", Computing, tmp_path, find_weights(tmp_path).files, Format(torch.bfloat16))
    assert ours.table.tolist() == [0, 1, 2, 3]
    assert torch.equal(ours.layer.weight, whole.layer.weight.bfloat16())


def whole_copies(backbone: Backbone, dtype: torch.dtype) -> Floor:
    """The noise floor by casting the whole network, from float32."""
    with torch.no_grad():
        exact = _difference(backbone, PROMPTS)
        nn.Module.to(backbone.denoiser, dtype)
        half, equal = _difference(backbone, PROMPTS), _difference(backbone, PROMPTS[:1] * 2)
    return Floor(*(float(x.flatten(1).std(dim=1).max()) for x in (equal, half - exact)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_gate_measures_the_same_layer_by_layer(tiny_folder: Path, dtype: torch.dtype) -> None:
    exact, coarse = (load_backbone(str(tiny_folder), "cpu", dtype=kind) for kind in (torch.float32, dtype))
    before = {name: value.clone() for name, value in coarse.denoiser.state_dict().items()}
    floors = [measure(exact, dtype), measure(coarse, dtype), whole_copies(exact, dtype)]
    assert floors[0] == floors[1] == floors[2]
    assert floors[0].error > 0
    assert all(torch.equal(value, before[name]) for name, value in coarse.denoiser.state_dict().items())
    assert coarse.dtype == dtype


def test_a_refused_format_is_read_again_in_float32(
    tiny_folder: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    coarse = load_backbone(str(tiny_folder), "cpu", dtype=torch.float16)
    assert coarse.fingerprint == tiny.fingerprint
    monkeypatch.setattr("sdist.models.precision.format_on", lambda device, precision: "fp16")  # as on CUDA
    lower(coarse, "auto", 1e-9)
    assert "precision stays fp32" in caplog.text
    assert same(coarse.denoiser, tiny.denoiser)


def test_layers_are_as_before_after_an_error(tiny: Backbone) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("inside")

    hook = tiny.denoiser.mid_block.register_forward_hook(fail)
    z, text = torch.zeros(1, 4, 8, 8), tiny.embed(["a cat"])
    try:
        with pytest.raises(RuntimeError, match="inside"), layerwise(tiny.denoiser, torch.float64):
            tiny.denoiser(z.double(), torch.tensor([5]), text.tokens.double())
    finally:
        hook.remove()
    assert {p.dtype for p in tiny.denoiser.parameters()} == {torch.float32}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny.denoiser.modules())


def test_loading_takes_little_more_memory_than_the_weights(tmp_path: Path) -> None:
    peak = Path("/proc/self/clear_refs")
    if not peak.exists():
        pytest.skip("the peak is counted anew on Linux only")
    UNet2DConditionModel(
        sample_size=8, block_out_channels=(320, 640), layers_per_block=1, cross_attention_dim=64,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    ).save_pretrained(tmp_path / "unet")  # fmt: skip
    peak.write_text("5")
    before, unet = resident(), load(tmp_path, "unet", Format(torch.bfloat16))
    weights = sum(p.numel() * p.element_size() for p in unet.parameters())
    assert weights > 60e6
    assert resident() - before < 1.2 * weights


class Encoders:
    """Of text: says where it was moved, and does not fit on a device."""

    def __init__(self, tiny: Backbone, fits: bool) -> None:
        self.places: list[str] = []
        self.encoders, self.text, self.fits = [self], tiny.text, fits

    def parameters(self) -> Any:
        return iter([torch.zeros(1, device="meta")])

    def to(self, device: torch.device) -> None:
        self.places.append(str(device))

    def embed(self, prompts: list[str]) -> Any:
        if not self.fits and self.places[-1] != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.text.embed(prompts)


@pytest.mark.parametrize(
    ("fits", "short", "places"), [(True, False, ["cuda"]), (True, True, ["cuda", "cpu"]), (False, False, ["cuda", "cpu"])]
)
def test_text_encoders_leave_a_device_that_is_short(
    tiny: Backbone, monkeypatch: pytest.MonkeyPatch, unchecked: None, fits: bool, short: bool, places: list[str]
) -> None:
    """No GPU is at hand: the rule, with encoders that only say where they go."""
    monkeypatch.setattr("sdist.models.text_memory.is_short", lambda device: short)
    monkeypatch.setattr("sdist.models.text_memory.release", lambda device: None)
    monkeypatch.setattr("sdist.prediction.Text.map", lambda text, function: text)
    encoders = Encoders(tiny, fits)
    embedded = embed_where_it_fits(encoders, ["a cat"], torch.device("cuda"))
    assert torch.equal(embedded.tokens, tiny.embed(["a cat"]).tokens)
    assert encoders.places == places
