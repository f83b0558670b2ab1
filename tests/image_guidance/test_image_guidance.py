"""Where adapters are found, what is refused in one line, and the estimate of an edited image's embedding."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdist.errors import UserError
from sdist.image_guidance import catalogue
from sdist.image_guidance.adapter import read_adapter
from sdist.image_guidance.catalogue import ADAPTERS, Source, fetch, find_adapter, missing
from sdist.image_guidance.guide import estimate, load_guide
from sdist.models.base import Backbone

GOLDEN = Path(__file__).parent.parent / "golden"
FOLDER = GOLDEN / "ip_adapter"


def test_an_adapter_is_found_by_alias_model_hub_id_folder_and_file() -> None:
    assert find_adapter("auto", "sd14") == find_adapter("sd15", "tinyworld") == ADAPTERS["sd15"]
    assert find_adapter("auto", "stable-diffusion-v1-5/stable-diffusion-v1-5") == ADAPTERS["sd15"]
    assert find_adapter("auto", "sd21") is None
    assert find_adapter("owner/name", "sdxl") == Source(("owner/name",), ADAPTERS["sdxl"].file, ADAPTERS["sdxl"].clips)
    for path in (FOLDER, FOLDER / "models" / "ip-adapter_sd15.safetensors"):
        source = find_adapter(str(path), "tinyworld")
        assert fetch(source) == FOLDER / "models" / "ip-adapter_sd15.safetensors"
        assert source.clips[0] == str(FOLDER / "clip")
        assert missing(source) == []


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = Source((str(tmp_path),), "adapter.safetensors", (str(tmp_path / "clip"),))
    assert missing(source) == [f"{tmp_path}/adapter.safetensors", str(tmp_path / "clip")]
    with pytest.raises(UserError, match=re.escape(f"no IP-Adapter for image guidance ({tmp_path}: no adapter.safetensors)")):
        fetch(source)
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text("{}")  # without weights
    assert str(tmp_path / "clip") in missing(source)
    monkeypatch.setattr(catalogue, "is_cached", lambda *_: False)
    with pytest.raises(UserError, match=r"h94/IP-Adapter: not on this disk \(HF_HUB_OFFLINE is set\)"):
        fetch(ADAPTERS["sd15"])


def test_a_clip_that_cannot_be_had_is_one_line() -> None:
    source = Source((str(FOLDER / "models"),), "ip-adapter_sd15.safetensors", ("owner/clip",))
    with pytest.raises(
        UserError, match=r"needs a CLIP with both towers \(owner/clip: not on this disk .*Name another by the setting clip"
    ):
        load_guide(source, torch.device("cpu"))


def test_the_hub_is_not_asked_for_what_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[bool]()

    def download(place: str, file: str, local_files_only: bool = False) -> str:
        asked.append(local_files_only)
        return "file"

    monkeypatch.setattr(catalogue, "is_cached", lambda *_: True)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert fetch(ADAPTERS["sd15"]) == Path("file")
    assert asked == [True]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "must hold one adapter .* found none"),
        ({"a.safetensors": b"", "models/b.safetensors": b""}, "found a.safetensors, b.safetensors; name the file itself"),
    ],
)
def test_a_folder_holds_one_adapter(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        find_adapter(str(tmp_path), "tinyworld")


def test_what_is_no_adapter_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        read_adapter(tmp_path / "broken.safetensors", "cpu")
    save_file({"image_proj.latents": torch.zeros(1)}, tmp_path / "plus.safetensors")
    with pytest.raises(UserError, match=r"no IP-Adapter of the plain kind: it lacks image_proj\.proj\.weight"):
        read_adapter(tmp_path / "plus.safetensors", "cpu")
    with pytest.raises(UserError, match=r"unknown IP-Adapter 'sd51'.*did you mean 'sd15'"):
        find_adapter("sd51", "tinyworld")


PROJ, NORM = "image_proj.proj.weight", "image_proj.norm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({PROJ: torch.zeros(128 * 24)}, r"its weights do not fit together \(image_proj.proj.weight \(3072,\)"),
        ({PROJ: torch.zeros(0, 24), "image_proj.proj.bias": torch.zeros(0)}, "do not fit together"),
        ({NORM: torch.zeros(16), "image_proj.norm.bias": torch.zeros(16)}, "do not fit together"),
        ({"ip_adapter.1.to_k_ip.weight": torch.full((16, 32), float("nan"))}, "to_k_ip.weight has values that are not"),
    ],
)
def test_a_damaged_adapter_is_one_line(tmp_path: Path, change: dict[str, torch.Tensor], message: str) -> None:
    """Also one whose values the layers would read without an error: a key that is no number, or no tokens at all."""
    save_file(load_file(FOLDER / "models" / "ip-adapter_sd15.safetensors") | change, tmp_path / "adapter.safetensors")
    with pytest.raises(UserError, match=message) as error:
        read_adapter(tmp_path / "adapter.safetensors", "cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["./here", "models/ip/adapter", "adapter.safetensors"])
def test_a_path_to_nothing_is_not_taken_for_an_alias(name: str) -> None:
    with pytest.raises(UserError, match=f"the IP-Adapter {name} does not exist; give a folder, a file"):
        find_adapter(name, "tinyworld")


def test_an_adapter_of_another_model_is_refused(tiny: Backbone) -> None:
    adapter = read_adapter(FOLDER / "models" / "ip-adapter_sd15.safetensors", "cpu")
    with pytest.raises(UserError, match=r"not for this model: layer down_.* wants weights \(8, 16\), it has \(16, 32\)"):
        adapter.check(tiny, "here")


def test_adapter_and_clip_belong_together(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "clip", tmp_path / "clip")
    weights = load_file(FOLDER / "models" / "ip-adapter_sd15.safetensors")
    save_file(weights | {"image_proj.proj.weight": torch.zeros(128, 20)}, tmp_path / "adapter.safetensors")
    with pytest.raises(UserError, match=r"reads embeddings of 20, the CLIP .* gives 24"):
        load_guide(find_adapter(str(tmp_path), "tinyworld"), torch.device("cpu"))


def test_the_estimate_moves_an_image_as_the_texts_differ() -> None:
    image, source, target = torch.tensor([[6.0, 8.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 0.0]])
    assert torch.equal(estimate(image, source, target, "paper"), torch.tensor([[9.0, 6.0]]))
    assert torch.equal(estimate(image, source, target, "released"), torch.tensor([[16.0, -2.0]]))
    assert torch.equal(estimate(image, source, source, "released"), image)
