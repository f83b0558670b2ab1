"""The Python interface on a tiny pipeline: what it takes, what it gives, what it keeps in memory, and how a run ends early."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import sdist
from sdist.api import make
from sdist.cli import main
from sdist.config.build import settings_of
from sdist.config.settings import Settings
from sdist.distillation.callbacks import Snapshot, StopCondition
from sdist.editors.base import Observers, report_unread
from sdist.editors.loading import ModelCache
from sdist.edits.request import Request
from sdist.models.loading import load_backbone
from sdist.models.stable_diffusion import StableDiffusion

SETTINGS = {"scale.threshold": 0.01, "scale": {"cross_level": 1, "self_level": 0}, "steps": 3}


def edit(image, model: Path, **options) -> sdist.Result:
    options = {"settings": SETTINGS, **options}
    return sdist.edit(image, source="a cat", target="a cat wearing a hat", model=str(model), **options)


def test_a_request_takes_what_an_edit_takes(unchecked: None, picture: Path, tiny_folder: Path) -> None:
    method, size = sdist.load(model=str(tiny_folder), settings=SETTINGS), Image.open(picture).size
    made = []
    for image in (picture, Image.open(picture), np.asarray(Image.open(picture)), picture.read_bytes()):
        request = Request(image, "a cat", "a cat wearing a hat", mask=np.ones(size[::-1], bool))
        (result,) = method.edit([method.prepare(replace(request, seed=1))])
        made.append(np.asarray(result.image))
        assert result.card["job"]["mask"] == request.mask.name
    assert all(np.array_equal(pixels, made[0]) for pixels in made)
    assert result.card["job"]["image"] == Path(result.card["job"]["image"]).name
    assert repr(method.model) == f"<StableDiffusion {tiny_folder} on cpu, float32>"


def test_an_edit_shows_how_far_it_is_and_says_that_it_shrinks(tiny_folder: Path, tmp_path: Path, capsys, caplog) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)).save(tmp_path / "large.png")
    caplog.set_level("WARNING", "sdist")
    edit(tmp_path / "large.png", tiny_folder)
    assert "3/3 steps" in capsys.readouterr().err
    assert [line for line in caplog.messages if line.startswith("100 x 100 pixels are scaled to 32 x 32")]
    caplog.clear()
    edit(tmp_path / "large.png", tiny_folder, progress=False)
    assert capsys.readouterr().err == ""
    assert not caplog.messages


def test_a_path_a_picture_and_an_array_give_the_same_edit(picture: Path, tiny_folder: Path, tmp_path: Path) -> None:
    results = [edit(given, tiny_folder) for given in (str(picture), Image.open(picture), np.asarray(Image.open(picture)))]
    pixels = [np.asarray(result.image) for result in results]
    assert np.array_equal(pixels[0], pixels[1])
    assert np.array_equal(pixels[0], pixels[2])
    assert results[0].card["job"]["image"] == str(picture)
    assert results[1].card["job"]["image"] == f"{results[1].card['job']['sha256'][:16]}.png"
    assert (results[0].mask.shape, len(results[0].attempts)) == ((1, 8, 8), 3)


@pytest.mark.parametrize(
    ("method", "instruction", "unread"),
    [
        ("sdedit", "", "the source prompt"),
        ("sds", "", "the source prompt"),
        ("dds", "", None),
        ("lusd", "", None),
        ("instruct_pix2pix", "", "the source prompt"),
        ("lime", "a hat", "the source prompt and the target prompt"),
    ],
)
def test_a_prompt_that_is_given_for_nothing_is_told_of_once(caplog, method: str, instruction: str, unread: str | None) -> None:
    editor = settings_of(method, (), {}).editor
    caplog.set_level("INFO", "sdist")
    report_unread(editor, Request(Path("photo.jpg"), "a cat", "a dog", instruction=instruction))
    assert [record.message for record in caplog.records] == ([f"not read by this method: {unread}"] if unread else [])
    report_unread(editor, Request(Path("photo.jpg"), "", "a dog"))
    assert len(caplog.records) == (unread is not None)


def test_the_command_and_the_function_tell_of_it_once(picture: Path, tiny_folder: Path, tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO", "sdist")
    edit(picture, tiny_folder, method="sds", settings=["steps=1"])
    assert caplog.text.count("not read by this method: the source prompt") == 1
    command = ["edit", str(picture), "--source", "a cat", "--target", "a dog", "--method", "sds", "--model", str(tiny_folder)]
    assert main([*command, "--steps", "1", "--seeds", "2", "--output", str(tmp_path / "out")]) == 0
    assert caplog.text.count("not read by this method: the source prompt") == 2


def test_a_saved_result_is_replayed_bit_for_bit(picture: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    edit(picture, tiny_folder).save(tmp_path / "edited.png")
    assert main(["replay", str(tmp_path / "edited.png")]) == 0
    result = edit(Image.open(picture), tiny_folder, seed=3, words="cat")
    result.save(tmp_path / "second.png")
    assert (result.card["job"]["seed"], result.card["words"]) == (3, ["cat"])
    kept = tmp_path / "kept" / result.card["job"]["image"]  # the picture was in memory, its card has its name alone
    kept.parent.mkdir()
    Image.open(picture).save(kept)
    assert main(["replay", str(tmp_path / "second.png"), "--images", str(kept.parent)]) == 0
    assert capsys.readouterr().out == "identical\n" * 2


def test_a_card_that_does_not_say_how_it_was_read_is_read_as_then(tiny_folder: Path, tmp_path: Path, capsys) -> None:
    """Before: no colour profile, a mask by luminance on white, scaled and cropped to the image, prompts as they stand."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    pixels = np.random.default_rng(0).integers(0, 60000, (32, 32), np.uint16) // 8
    Image.fromarray(pixels).save(tmp_path / "dark.png", icc_profile=profile)
    Image.new("RGBA", (20, 32), (0, 0, 0, 128)).save(tmp_path / "mask.png")
    method = sdist.load(model=str(tiny_folder), settings=SETTINGS)
    request = sdist.Request(
        tmp_path / "dark.png", "a\u200b cat", "a cat in a hat", 1, ("hat",), tmp_path / "mask.png", plain=True
    )
    (result,) = method.edit([method.prepare(request)])
    assert np.array_equal(np.asarray(result.prepared.image)[..., 0], (pixels * (255 / 65535)).round())
    assert np.asarray(result.prepared.mask).max() < 200
    replace(result, card=method.card(result)).save(tmp_path / "edited.png")
    assert main(["replay", str(tmp_path / "edited.png")]) == 0
    assert capsys.readouterr().out == "identical\n"


def test_settings_are_a_mapping_or_a_list(tiny_folder: Path) -> None:
    nested = settings_of("lusd", {"optimizer": {"lr": 0.5}, "regularizers.source_pull.weight": 0.1}, {"steps": 4})
    listed = settings_of("lusd", ["optimizer.lr=0.5", "regularizers.source_pull.weight=0.1"], {"steps": 4})
    assert nested == listed
    assert (nested.editor.optimizer.lr, nested.editor.steps, nested.editor.optimizer.name) == (0.5, 4, "SGD")
    assert settings_of("lusd", {"steps": 9}, {"steps": 4}).editor.steps == 4


BAD = {
    "a file that is not there": ({"image": "nowhere.png"}, "does not exist"),
    "an array of floats": ({"image": np.zeros((8, 8, 3))}, "of uint8; got 8 x 8 x 3 of float64"),
    "an empty array": ({"image": np.zeros((0, 8), np.uint8)}, "no pixels"),
    "settings as text": ({"settings": "steps=3"}, "a mapping or a list"),
    "an unknown key": ({"settings": {"method": "dds"}}, "unknown key 'method'"),
    "a value that is no setting": ({"settings": {"steps": object()}}, "settings cannot be read"),
    "an empty path": ({"image": ""}, "the path of an image is empty: name its file"),
    "an unknown method": ({"method": "lusdd"}, "did you mean 'lusd'"),
    "a word that is not there": ({"words": ["hut"]}, "did you mean 'hat'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_a_user_error(name: str, picture: Path, tiny_folder: Path) -> None:
    given, message = BAD[name]
    with pytest.raises(sdist.UserError, match=message):
        edit(**{"image": picture, "model": tiny_folder, **given})


def test_every_step_is_told(picture: Path, tiny_folder: Path) -> None:
    seen: list[Snapshot] = []
    result = edit(picture, tiny_folder, on_step=seen.append)
    assert [s.step for s in seen] == [0, 1, 2, 3]
    assert tuple(s.attempts for s in seen[1:]) == result.attempts
    assert all(s.grad_std >= s.threshold > 0 or s.attempts == 100 for s in seen[1:])
    assert np.array_equal(np.asarray(seen[-1].image), np.asarray(result.image))
    assert not np.array_equal(np.asarray(seen[0].image), np.asarray(result.image))


def test_a_stopped_run_gives_what_there_is_and_is_replayed(picture: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    job = Request(picture, "a cat", "a cat wearing a hat")
    settings = settings_of("lusd", {**SETTINGS, "steps": 50}, {"model": str(tiny_folder)})
    result = make(settings, job, Observers([StopCondition(lambda distiller: int(distiller.step[0]) == 2)]))
    assert len(result.attempts) == 2
    result.save(tmp_path / "stopped.png")
    assert main(["replay", str(tmp_path / "stopped.png")]) == 0
    assert capsys.readouterr().out == "identical\n"
    before = make(settings, job, Observers([StopCondition(lambda distiller: True)]))
    assert len(before.attempts) <= 1


def test_a_run_works_in_a_thread(picture: Path, tiny_folder: Path) -> None:
    results: list[sdist.Result] = []
    threads = [threading.Thread(target=lambda: results.append(edit(picture, tiny_folder))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = np.asarray(edit(picture, tiny_folder).image)
    assert [np.array_equal(np.asarray(result.image), alone) for result in results] == [True, True]


def test_a_model_is_loaded_once(tiny_folder: Path, monkeypatch) -> None:
    loads: list[str] = []
    unet = load_backbone(str(tiny_folder), "cpu").denoiser

    def fake(settings: Settings) -> SimpleNamespace:
        loads.append(settings.precision)
        model = StableDiffusion.__new__(StableDiffusion)  # nothing is edited
        model._alphas_cumprod, model.denoiser = torch.ones(1000), unet
        return SimpleNamespace(model=model)

    monkeypatch.setattr("sdist.editors.loading.load_method", fake)
    cache = ModelCache(kept=2)
    lusd, dds = (settings_of(method, {}, {"model": str(tiny_folder)}) for method in ("lusd", "dds"))
    assert cache.get(lusd).model is cache.get(dds).model  # the filter's threshold matters to half precision alone
    bf16 = [settings_of(m, {}, {"model": str(tiny_folder), "precision": "bf16"}) for m in ("lusd", "dds")]
    assert cache.get(bf16[0]).model is not cache.get(bf16[1]).model
    assert loads == ["auto", "bf16", "bf16"]
    cache.get(lusd)  # two are kept, so it was given up
    assert loads[3:] == ["auto"]
    weights = next(tiny_folder.glob("unet/*.safetensors"))
    stat = weights.stat()
    try:
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))  # trained further
        cache.get(lusd)
        assert loads[4:] == ["auto"]
    finally:
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_importing_is_light_and_names_are_public() -> None:
    code = "import sys, sdist; assert 'edit' in dir(sdist); sdist.UserError; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'edti'"):
        sdist.edti  # noqa: B018


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(sdist.__file__).parent / "py.typed").is_file()
    assert all(hasattr(sdist, name) for name in sdist.__all__)
