"""Image guidance as an option of score distillation: what each row of every loss reads, and what is refused in one line."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.editors.base import Observers
from sdist.editors.loading import LoadedMethod, load_method
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.prediction import NULL, SOURCE, SOURCE_NULL, SOURCE_SOURCE, TARGET

GOLDEN = Path(__file__).parent.parent / "golden"
ON = f"image_guidance.adapter={GOLDEN / 'ip_adapter'}"
LOSSES = ["cds", "dds", "flowedit", "lusd", "rfds", "sbp", "sds", "dds loss.name=combination loss.edit_negative=1"]


@pytest.fixture(scope="module")
def golden() -> Backbone:
    return load_backbone(str(GOLDEN / "pipeline"), "cpu")


@pytest.fixture
def requests(picture: Path, tmp_path: Path) -> list[Request]:
    """Two images of one size."""
    Image.fromarray(np.asarray(Image.open(picture))[::-1].copy()).save(tmp_path / "other.png")
    return [Request(picture, "a cat", "a dog"), Request(tmp_path / "other.png", "red", "a red hat")]


def edited(model: Backbone, requests: list[Request], method: str, *more: str) -> list[np.ndarray]:
    name, *overrides = method.split()
    loaded = LoadedMethod(load_settings(name, [*overrides, "steps=1", "size=64x64", *more]), model)
    return [np.asarray(r.image, float) for r in loaded.edit([loaded.prepare(request) for request in requests], Observers())]


def test_each_prompt_reads_the_embedding_that_it_should(golden: Backbone, requests: list[Request]) -> None:
    """The target the estimate, the source the image, all others zero; of an image that is left, its own."""
    loaded = LoadedMethod(load_settings("dds", [ON, "image_guidance.scale=0.7", "size=64x64"]), golden)
    batch = [loaded.prepare(request) for request in requests]
    image, target = loaded.editor.image_guidance.guide(golden).read(batch, "paper")
    adapter, layers = loaded.editor.image_guidance.guide(golden).adapter, [x.name for x in golden.layout.layers("cross")]
    rows = {TARGET: target, SOURCE_SOURCE: image, NULL: 0 * image, SOURCE_NULL: 0 * image}
    wanted, ours = adapter.hook(layers, rows, 0.7), loaded.editor.encode(golden, batch).steering
    assert ours.scale == 0.7
    last = ours.narrow(torch.tensor([1]))
    for part in ("keys", "values"):
        for layer in layers:
            of_layer = getattr(ours, part)[layer]
            assert of_layer.keys() == rows.keys()
            for branch, value in getattr(wanted, part)[layer].items():
                assert torch.equal(of_layer[branch], value)
                assert torch.equal(getattr(last, part)[layer][branch], value[1:])


def test_a_correction_of_the_noise_reads_it_too(golden: Backbone, requests: list[Request]) -> None:
    loaded = LoadedMethod(load_settings("rfds", [ON, "loss.reverse=true", "loss.guidance_scale=1", "size=64x64"]), golden)
    steering = loaded.editor.encode(golden, [loaded.prepare(requests[0])]).steering
    assert {branch for by_branch in steering.keys.values() for branch in by_branch} == {TARGET}
    assert SOURCE not in loaded.editor.branches


@pytest.mark.parametrize("method", LOSSES)
def test_it_moves_every_loss_and_company_changes_nothing(golden: Backbone, requests: list[Request], method: str) -> None:
    together, plain = edited(golden, requests, method, ON), edited(golden, requests, method)
    alone = [edited(golden, [request], method, ON)[0] for request in requests]
    for ours, other, off in zip(together, alone, plain, strict=True):
        assert np.abs(ours - other).max() <= 1
        assert not np.array_equal(ours, off)


@pytest.mark.parametrize("off", ["image_guidance.adapter=null", "image_guidance.scale=0"])
def test_off_is_off(golden: Backbone, requests: list[Request], off: str) -> None:
    for ours, plain in zip(edited(golden, requests, "dds", ON, off), edited(golden, requests, "dds"), strict=True):
        assert np.array_equal(ours, plain)
    assert LoadedMethod(load_settings("dds", [ON, off]), golden).editor.weights(golden) == {}


def test_the_card_names_what_was_read_and_replays(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit = ("edit", picture, "--source", "a cat", "--target", "a dog", "--method", "sds", "--model", GOLDEN / "pipeline")
    assert main([*map(str, edit), "--steps", "2", "--output", str(tmp_path), "--quiet", "--set", ON, "size=64x64"]) == 0
    result = tmp_path / "picture_sds_a-dog_seed0.png"
    assert '"image_guidance": "ip-adapter_sd15.safetensors ' in Image.open(result).text["sdist"]
    assert main(["replay", str(result), "--quiet"]) == 0
    assert "identical" in capsys.readouterr().out


def test_a_source_prompt_is_read_by_the_estimate(requests: list[Request]) -> None:
    assert [load_settings("sds", more).editor.unread(requests[0]) for more in ([], [ON])] == [("source",), ()]


def test_a_clip_of_ones_own(golden: Backbone, requests: list[Request], tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "ip_adapter" / "clip", tmp_path / "mine")
    ours, theirs = (edited(golden, requests[:1], "dds", ON, *more) for more in ([f"image_guidance.clip={tmp_path / 'mine'}"], []))
    assert abs(ours[0] - theirs[0]).max() <= 1  # rounding
    for method, key in (("dds", "image_guidance"), ("vimaedit", "editor")):
        adapter = f"{key}.adapter={GOLDEN / 'ip_adapter'}"
        with pytest.raises(UserError, match=r"needs a CLIP with both towers \(owner/clip: not on this disk"):
            LoadedMethod(load_settings(method, [adapter, f"{key}.clip=owner/clip"]), golden)
    with pytest.raises(UserError, match="owner/clip: not on this disk"):  # also where the adapter is the model's own
        LoadedMethod(load_settings("vimaedit", ["editor.clip=owner/clip"]), load_backbone("tinyworld", "cpu"))


def test_what_cannot_be_had_is_one_line(tiny: Backbone, golden: Backbone) -> None:
    for model, adapter, message in (
        (tiny, "auto", "no IP-Adapter is known for"),
        (tiny, GOLDEN / "ip_adapter", "is not for this model"),
        (golden, "nowhere", "unknown IP-Adapter 'nowhere'"),
    ):
        with pytest.raises(UserError, match=message) as error:
            LoadedMethod(load_settings("lusd", [f"image_guidance.adapter={adapter}"]), model)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="scale of image guidance is at least 0, got -1"):
        load_settings("lusd", ["image_guidance.scale=-1"])


def test_networks_that_cannot_be_steered_are_refused_before_an_edit() -> None:
    with pytest.raises(UserError, match="looks at both in one layer"):
        load_method(load_settings("rfds", [ON], model="tinyworld-flow"))
