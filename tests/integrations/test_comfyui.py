"""The node pack by ComfyUI's published interface of nodes, without ComfyUI."""

import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

import sdist

FOLDER = Path(__file__).parent.parent.parent / "integrations" / "comfyui"
KINDS = {"IMAGE", "MASK", "STRING", "INT", "FLOAT", "BOOLEAN", "SDIST_MODEL"}
SETTINGS = "scale.threshold=0.01\nscale.cross_level=1\nscale.self_level=0"
PROMPTS = ("a cat", "a cat wearing a hat")


@pytest.fixture(scope="module")
def pack() -> ModuleType:
    """As ComfyUI loads a folder of custom_nodes."""
    spec = importlib.util.spec_from_file_location("custom_nodes_sdist", FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules["custom_nodes_sdist"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(pack: ModuleType, tiny_folder: Path) -> dict:
    (chosen,) = pack.NODE_CLASS_MAPPINGS["SdistModel"]().choose("tinyworld", path=str(tiny_folder))
    return chosen


def test_nodes_are_as_comfyui_asks_for_them(pack: ModuleType) -> None:
    assert pack.NODE_CLASS_MAPPINGS.keys() == pack.NODE_DISPLAY_NAME_MAPPINGS.keys()
    for node in pack.NODE_CLASS_MAPPINGS.values():
        groups = node.INPUT_TYPES()
        assert groups.keys() <= {"required", "optional", "hidden"}
        inputs = {name: entry for group in groups.values() for name, entry in group.items()}
        for name, (kind, *options) in inputs.items():
            assert kind in KINDS if isinstance(kind, str) else all(isinstance(choice, str) for choice in kind)
            for given in options:
                assert "default" in given
                assert isinstance(kind, str) or given["default"] in kind, name
        parameters = inspect.signature(getattr(node(), node.FUNCTION)).parameters
        assert parameters.keys() == inputs.keys()
        assert [name for name, each in parameters.items() if each.default is each.empty] == list(groups["required"])[: len(
            groups["required"])]  # fmt: skip
        assert set(node.RETURN_TYPES) <= KINDS
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
        assert isinstance(node.CATEGORY, str)


def test_a_batch_is_edited_by_its_masks(pack: ModuleType, model: dict) -> None:
    images, masks = torch.rand(2, 32, 32, 3), torch.zeros(2, 32, 32)
    masks[0, :, :16] = masks[1, :, 16:] = 1
    with torch.inference_mode():  # as ComfyUI runs nodes
        made, changed, cards = pack.NODE_CLASS_MAPPINGS["SdistEdit"]().edit(
            model, images, "lusd", *PROMPTS, seed=3, steps=2, mask=masks, keep_background=True, settings=SETTINGS
        )
    assert (made.shape, made.dtype, changed.shape) == (images.shape, torch.float32, masks.shape)
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    moved = ((made - images).abs() > 0.5 / 255 + 1e-6).any(-1)
    assert not (moved & (masks == 0)).any()
    assert moved[masks == 1].float().mean() > 0.9
    assert [json.loads(card)["job"]["seed"] for card in cards] == [3, 3]


def test_the_node_gives_what_python_gives(pack: ModuleType, model: dict, tiny_folder: Path) -> None:
    image = torch.rand(1, 32, 32, 3)
    made, changed, _ = pack.NODE_CLASS_MAPPINGS["SdistEdit"]().edit(model, image, "dds", *PROMPTS, seed=1, steps=2)
    pixels = (image[0] * 255).round().byte().numpy()
    alone = sdist.edit(pixels, *PROMPTS, method="dds", model=tiny_folder, seed=1, steps=2, progress=False)
    assert np.array_equal((made[0] * 255).round().byte().numpy(), np.asarray(alone.image))
    assert (changed == 1).all()  # dds has no mask


def test_the_mask_of_a_crop_lies_where_it_was_edited(pack: ModuleType, model: dict) -> None:
    image, mask = torch.rand(1, 60, 90, 3), torch.zeros(1, 60, 90)
    mask[0, 20:30, 40:55] = 1
    made, changed, _ = pack.NODE_CLASS_MAPPINGS["SdistEdit"]().edit(
        model, image, "lusd", *PROMPTS, seed=0, steps=2, mask=mask, crop="mask", settings=SETTINGS
    )
    assert made.shape == image.shape
    rows, columns = changed[0].nonzero(as_tuple=True)
    assert 9 <= int(rows.min()) <= int(rows.max()) < 41
    assert 32 <= int(columns.min()) <= int(columns.max()) < 64


def test_steps_are_shown_and_cancel_ends_them(pack: ModuleType, model: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = list[tuple]()

    class Cancelled(Exception):  # noqa: N818 (of ComfyUI)
        pass

    def cancel() -> None:
        if len(shown) > 4:
            raise Cancelled

    bar = SimpleNamespace(update_absolute=lambda *update: shown.append(update))
    monkeypatch.setitem(sys.modules, "comfy", ModuleType("comfy"))
    monkeypatch.setitem(sys.modules, "comfy.utils", SimpleNamespace(ProgressBar=lambda total: bar))
    monkeypatch.setitem(sys.modules, "comfy.model_management", SimpleNamespace(throw_exception_if_processing_interrupted=cancel))
    node, images = pack.NODE_CLASS_MAPPINGS["SdistEdit"](), torch.rand(2, 32, 32, 3)
    with pytest.raises(Cancelled):
        node.edit(model, images, "dds", *PROMPTS, seed=0, steps=2)
    assert [(done, total) for done, total, _ in shown] == [(0, 4), (1, 4), (2, 4), (2, 4), (3, 4)]
    kind, picture, _ = shown[0][2]
    assert (kind, picture.size) == ("JPEG", (32, 32))


def test_names_are_those_of_comfyuis_folders(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {("checkpoints", "mine.safetensors"): "/c/mine.safetensors", ("loras", "style.safetensors"): "/l/style.safetensors"}
    folders = SimpleNamespace(
        get_full_path=lambda kind, name: files.get((kind, name)),
        get_filename_list=lambda kind: [name for of, name in files if of == kind] + ["old.ckpt"],
    )
    monkeypatch.setitem(sys.modules, "folder_paths", folders)
    node = pack.NODE_CLASS_MAPPINGS["SdistModel"]
    names = node.INPUT_TYPES()["required"]["model"][0]
    assert "mine.safetensors" in names
    assert "old.ckpt" not in names
    (chosen,) = node().choose("mine.safetensors", lora="style.safetensors:0.8\n\nother.safetensors\n")
    assert chosen["model"] == "/c/mine.safetensors"
    assert chosen["lora"] == ["/l/style.safetensors:0.8", "other.safetensors"]


@pytest.mark.parametrize("shape", [(2, 32, 32), (32, 32), (1, 1, 32, 32)])
def test_masks_that_do_not_fit_the_images_are_one_line(pack: ModuleType, model: dict, shape: tuple[int, ...]) -> None:
    node = pack.NODE_CLASS_MAPPINGS["SdistEdit"]()
    with pytest.raises(sdist.UserError, match=re.escape(f"mask is {shape}, must be (1, h, w), or (3, h, w)")):
        node.edit(model, torch.rand(3, 32, 32, 3), "dds", *PROMPTS, seed=0, steps=1, mask=torch.ones(shape))


def test_the_default_method_is_the_models_own(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()

    def edit(*given: object, method: str, **more: object) -> None:
        asked.append(method)
        raise sdist.UserError("enough")

    monkeypatch.setattr(sdist, "edit", edit)
    node = pack.NODE_CLASS_MAPPINGS["SdistEdit"]
    auto = node.INPUT_TYPES()["required"]["method"][1]["default"]
    for name in ("tinyworld", "sd15"):
        (chosen,) = pack.NODE_CLASS_MAPPINGS["SdistModel"]().choose(name)
        with pytest.raises(sdist.UserError, match="enough"):
            node().edit(chosen, torch.rand(1, 32, 32, 3), auto, *PROMPTS, seed=0, steps=1)
    assert asked == ["localflow", "lusd"]
