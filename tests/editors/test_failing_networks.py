"""Memory that runs out and numbers that are not finite: one image fails, in one line that says where; the others are made."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.editors.base import Observers
from sdist.editors.loading import LoadedMethod, adapt, model_cache
from sdist.edits.request import Request
from sdist.errors import ImagesError, NotFiniteError, UserError
from sdist.faults import is_out_of_memory
from sdist.models.autoencoder import TILES, through_autoencoder
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.models.memory import AllocationError
from sdist.models.precision import measure

METHODS = {"dds": ["steps=1"], "p2p": ["editor.steps=1"], "sdedit": ["editor.num_inference_steps=2"]}
WEIGHTS = {  # by what is named: a weight that is not finite
    r"the encoder of the vae": ("vae", ".encoder.conv_in.bias"),
    r"the encoder of the vae ": ("vae", ".quant_conv.weight"),
    r"the decoder of the vae": ("vae", ".decoder.conv_out.bias"),
    r"the decoder of the vae ": ("vae", ".post_quant_conv.weight"),
    r"the text_encoder": ("text_encoder", ".final_layer_norm.bias"),
    r"the denoiser \(unet\)": ("denoiser", ".conv_in.weight"),
    r"the denoiser \(unet\) ": ("denoiser", ".conv_out.bias"),
}
PLACES = {"encode": "vae.encode", "decode": "vae.decode", "embed": "text.embed"}


@pytest.fixture
def fresh(tiny_folder: Path) -> Backbone:
    return load_backbone(str(tiny_folder), "cpu")


def loaded(model: Backbone, method: str) -> LoadedMethod:
    settings = load_settings(method, METHODS[method], model=model.name)
    return LoadedMethod(settings, adapt(model, settings))


def requests(folder: Path, count: int) -> list[Request]:
    made = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        made.append(Request(folder / f"{number}.png", "a cat", "a dog"))
    return made


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("named", WEIGHTS)
def test_a_network_that_gives_nan_or_infinity_is_named(
    fresh: Backbone, tmp_path: Path, named: str, method: str, value: float
) -> None:
    part, weight = WEIGHTS[named]
    network = fresh.text.encoders[0] if part == "text_encoder" else getattr(fresh, part)
    (tensor,) = [p for name, p in network.named_parameters() if f".{name}".endswith(weight)]
    with torch.no_grad():
        tensor[(0,) * tensor.dim()] = value
    ready = loaded(fresh, method)
    with pytest.raises(ImagesError, match=rf"^0\.png: {named.strip()} gave values that are not finite"):
        ready.edit([ready.prepare(request) for request in requests(tmp_path, 1)])


class Failing:
    """Fails at those calls, counted from 1, and does its work at others."""

    def __init__(self, owner: Any, name: str, at: set[int]) -> None:
        self.work, self.at, self.calls = getattr(owner, name), at, 0
        object.__setattr__(owner, name, self) if not isinstance(owner, nn.Module) else vars(owner).update({name: self})

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls in self.at:
            torch.empty(2**50)  # a real failure to allocate
        return self.work(*args, **options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", ["encode", "decode"])
def test_memory_that_runs_out_for_one_image_leaves_the_others(fresh: Backbone, tmp_path: Path, method: str, place: str) -> None:
    ready, delivered = loaded(fresh, method), []
    batch = [ready.prepare(request) for request in requests(tmp_path, 3)]
    failing = Failing(fresh.vae, place, {2})
    reasons = {}
    try:
        ready.edit(batch, Observers(deliver=delivered.append, parallel=1 if method == "p2p" else None))
    except ImagesError as error:
        reasons = error.reasons
    assert failing.calls >= 3
    assert len(delivered) == 3 - len(reasons)
    assert all(place == 1 and reason.startswith("1.png: ") and "fit in memory" in reason for place, reason in reasons.items())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", PLACES)
def test_memory_that_never_suffices_is_one_line_per_image(fresh: Backbone, tmp_path: Path, method: str, place: str) -> None:
    ready = loaded(fresh, method)
    batch = [ready.prepare(request) for request in requests(tmp_path, 2)]
    if place == "embed":
        Failing(fresh.text.encoders[0], "forward", set(range(100)))
    else:
        Failing(fresh.vae, place, set(range(100)))
    with pytest.raises(ImagesError) as raised:
        ready.edit(batch)
    assert list(raised.value.reasons) == [0, 1]
    for number, reason in raised.value.reasons.items():
        assert reason.startswith(f"{number}.png: ")
        assert "fit in memory" in reason
        assert "\n" not in reason


def test_a_run_goes_on_when_memory_fails_outside_of_single_images(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Here the user masks of a batch: nothing else is computed there, and nothing fails image by image."""
    (tmp_path / "images").mkdir()
    requests(tmp_path / "images", 3)
    rows = "".join(f"{number}.png,a cat,a dog\n" for number in range(3))
    (tmp_path / "index.csv").write_text("img_path,source_prompt,target_prompt\n" + rows)
    calls = []

    def full(batch: list[Any], like: Tensor) -> None:
        calls.append(len(batch))
        if len(batch) > 1 or len(calls) == 3:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("sdist.editors.score_distillation.mask_rows", full)
    run = ["run", "--input", str(tmp_path), "--output", str(tmp_path / "out"), "--model", str(tiny_folder)]
    assert main([*run, "--method", "dds", "--steps", "1"]) == 2
    assert calls == [3, 1, 1, 1]
    assert "going on with one image at a time" in caplog.text
    assert sorted(path.name for path in (tmp_path / "out").glob("*_seed0.png")) == ["0_seed0.png", "2_seed0.png"]
    assert "fit in memory" in json.loads((tmp_path / "out" / "errors" / "1_seed0.json").read_text())["error"]


def test_loading_and_the_gate_say_what_does_not_fit(
    tiny_folder: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = ["edit", str(picture), "--source", "a cat", "--target", "a dog", "--model", str(tiny_folder)]

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 10.00 GiB")

    for target, more in (
        ("sdist.models.base.Backbone.arrange", []),
        ("sdist.models.precision.measure", ["--precision", "bf16"]),
        ("sdist.models.loading.load_stored", ["--precision", "bf16", "--method", "dds"]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, full)
            model_cache._models.clear()
            output = ["--steps", "1", "--quiet", "--output", str(tmp_path / "out")]
            assert main([*edit, *more, *output]) == 2
        *_, line = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("sdist: error: ")
        assert "fit in memory: CUDA out of memory" in line


class Elsewhere(Tensor):
    """No device but the CPU is at hand: rows say that they are elsewhere, where nothing on the CPU can join them."""

    device = torch.device("cuda")

    def cpu(self) -> Tensor:
        return self.as_subclass(Tensor)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.cat and len({one.device for one in args[0]}) > 1:
            raise RuntimeError("Expected all tensors to be on the same device")
        return super().__torch_function__(func, types, args, kwargs)


def test_the_autoencoder_runs_on_the_cpu_where_its_device_is_full(
    tiny: Backbone, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def decode(row: Tensor) -> Tensor:
        calls.append(row)
        if len(calls) <= 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.zeros(1, 3, 8, 8)

    monkeypatch.setattr("sdist.models.autoencoder.release", lambda device: None)
    rows = torch.zeros(1, 4, 2, 2).as_subclass(Elsewhere)
    assert through_autoencoder(tiny.vae, rows, "decoder", decode, {}).shape == (1, 3, 8, 8)
    assert "it runs on the CPU instead" in caplog.text


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_the_autoencoder_goes_in_tiles_where_memory_is_short(tiny: Backbone, caplog: pytest.LogCaptureFixture, part: str) -> None:
    """The same image but for its seams, the same tiles again for the same size, and a network as before."""
    image = torch.rand(1, 3, 64, 64)
    whole = tiny.decode(z := tiny.encode(image)) if part == "decoder" else tiny.encode(image)
    side, rows = (16, z) if part == "decoder" else (64, image * 2 - 1)

    def compute(row: Tensor) -> Tensor:
        if not tiny.vae.use_tiling:
            raise torch.OutOfMemoryError("out of memory")
        return tiny.pixels(tiny.to_vae(row)) if part == "decoder" else tiny.from_vae(tiny.posterior(row).mean)

    tiled: dict[str, int] = {}
    with torch.no_grad():
        found = through_autoencoder(tiny.vae, rows, part, compute, tiled)
        again = through_autoencoder(tiny.vae, rows, part, compute, tiled)
    assert tiled == {f"{part}, {side} x {side}": 2}
    assert torch.equal(found, again)
    assert found.shape == whole.shape
    assert "it goes in tiles, 2 along the longer side" in caplog.text
    assert not tiny.vae.use_tiling
    assert tiny.changes == []


def test_an_image_that_is_encoded_on_the_cpu_joins_those_of_the_device(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, encode, calls = torch.rand(2, 3, 32, 32), tiny.vae.encode, []
    expected = tiny.encode(pixels)

    def full_at_the_second(row: Tensor) -> Any:
        calls.append(row)
        if 1 < len(calls) < 3 + len(TILES):  # whole, and in every number of tiles
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(row)

    monkeypatch.setattr(tiny.vae, "encode", full_at_the_second)
    monkeypatch.setattr("sdist.models.autoencoder.release", lambda device: None)
    assert torch.equal(tiny.encode(pixels.as_subclass(Elsewhere)), expected)
    assert len(calls) == 3 + len(TILES)


def test_a_gate_whose_exact_prediction_is_not_finite_names_the_denoiser(fresh: Backbone) -> None:
    with torch.no_grad():
        fresh.denoiser.conv_in.bias[0] = torch.nan
    with pytest.raises(NotFiniteError, match=r"the denoiser \(unet\)"):
        measure(fresh, torch.bfloat16)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError(28, "No space left on device"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_failed_allocations_are_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_an_allocation_error_is_bad_input_and_travels_between_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(AllocationError("the model", "10 GiB wanted")))
    assert isinstance(error, UserError)
    assert str(error).startswith("the model does not fit in memory: 10 GiB wanted; ")
