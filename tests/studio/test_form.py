"""The studio without a browser: from what stands on the page to runs, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from sdist.errors import UserError
from sdist.models.options import LoadOptions
from sdist.studio.form import EditOrder, reads, runs_of, words_of
from sdist.studio.limits import Limits, Offer, plain_overrides
from sdist.studio.server import methods_here, models_here, names_of

from .samples import a_run, wanted


def test_methods_times_seeds(picture: Path, tiny_folder: Path) -> None:
    runs = runs_of(wanted(picture, tiny_folder, methods=["lusd", "dds"], seeds=2, seed=5, overrides=""), Limits())
    assert [run.label for run in runs] == ["lusd, seed 5", "lusd, seed 6", "dds, seed 5", "dds, seed 6"]
    assert [run.settings.editor.steps for run in runs] == [3] * 4


def test_words_and_masks(picture: Path, tiny_folder: Path) -> None:
    assert words_of("a cat", "a cat wearing a red hat") == (["a", "cat", "wearing", "red", "hat"], ["hat"])
    assert a_run(picture, tiny_folder, chosen=["red"]).request.words == ("red",)
    assert "attention_mask" not in a_run(picture, tiny_folder, chosen=[]).settings.editor.regularizers
    painted_alone = a_run(picture, tiny_folder, chosen=[], mask=picture)
    assert list(painted_alone.settings.editor.regularizers) == ["source_pull"]
    assert painted_alone.request.mask == picture
    for method in ("dds", "lusd_difference", "sds", "flowedit"):
        without = a_run(picture, tiny_folder, methods=[method], overrides="", chosen=["hat"], mask=picture)
        assert (without.request.words, without.request.mask) == ((), picture)
    assert "difference_mask" in a_run(picture, tiny_folder, methods=["lusd_difference"], chosen=[]).settings.editor.regularizers
    assert reads(["dds", "lusd"], "words")
    assert not reads(["dds", "lusd_difference"], "words")
    assert reads(["dds"], "mask")
    assert not reads(["sdedit"], "mask")


REFUSED = {
    "no picture": ({"image": None}, "there is no picture yet"),
    "steps": ({"steps": 1001}, "at most 1000"),
    "edits": ({"seeds": 13}, "choose 1 to 12"),
    "no method": ({"methods": []}, "choose 1 to 12"),
    "a long prompt": ({"target": "a " * 2000}, "at most 2000"),
    "another model": ({"overrides": "model=/etc"}, "unknown setting 'model'"),
    "a key in brackets": ({"overrides": "[model]=/etc"}, "unknown setting"),
    "the environment": ({"overrides": "prompts.null=${oc.env:HOME}"}, "taken literally"),
    "an unknown key": ({"overrides": "optimizer.lrr=1"}, "unknown key 'lrr'"),
    "an adapter's file": ({"overrides": "image_guidance.adapter=/etc"}, "unknown IP-Adapter '/etc' .*this studio"),
    "an adapter of the hub": (
        {"methods": ["vimaedit"], "steps": 0, "overrides": "editor.adapter=any/one"},
        "unknown IP-Adapter 'any/one'",
    ),
    "a CLIP's folder": (
        {"methods": ["vimaedit"], "steps": 0, "overrides": "editor.clip=/etc"},
        "the adapter's own CLIP: leave clip out, got '/etc'",
    ),
    "a CLIP of the hub": ({"overrides": "image_guidance.clip=any/one"}, "leave clip out, got 'any/one'"),
    "nothing to crop around": ({"crop": "mask"}, "paint where it may change first"),
    "no mask to keep a background by": (
        {"methods": ["sdedit"], "overrides": "", "steps": 0, "keep_background": True},
        "sdedit makes no mask: paint where",
    ),
    "no target": ({"target": " "}, "target prompt is empty"),
    "a mask that a method ignores": (
        {"methods": ["lusd", "sdedit"], "overrides": "", "steps": 0, "mask": Path("mask.png")},
        "sdedit has no mask",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, picture: Path, tiny_folder: Path) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        runs_of(EditOrder(**{**wanted(picture, tiny_folder).__dict__, **changes}), Limits())


def test_a_painted_mask_goes_with_every_method_that_keeps_the_background(picture: Path, tiny_folder: Path) -> None:
    asked = {"methods": ["sdedit"], "overrides": "", "steps": 0, "mask": picture}
    run = a_run(picture, tiny_folder, keep_background=True, output_size="source", **asked)
    assert (run.settings.keep_background, run.settings.output_size, run.request.mask) == (True, "source", picture)
    assert a_run(picture, tiny_folder, crop="mask", **asked).settings.crop == "mask"


def test_what_is_put_on_a_model_is_chosen_by_name(offer: Offer, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").touch()
    files = [str(tmp_path / f"{name}.safetensors") for name in ("a", "b")]
    added = names_of(LoadOptions(loras=(f"{files[0]}:0.5", files[1]), embeddings=(files[0],)))
    chosen = replace(offer, added=added).chosen("", ["a.safetensors:0.5"], [])
    assert chosen == {"vae": "", "lora": [f"{files[0]}:0.5"], "embedding": []}
    with pytest.raises(UserError, match=r"unknown lora '/etc/x' in this studio: have a.safetensors:0.5, b.safetensors"):
        replace(offer, added=added).chosen("", ["/etc/x"], [])
    with pytest.raises(UserError, match=r"two of --lora are called b\.safetensors"):
        names_of(LoadOptions(loras=(files[1], files[1])))
    for missing in (LoadOptions(loras=("none.safetensors",)), LoadOptions(vae="none.safetensors")):
        with pytest.raises(UserError, match="does not exist"):
            names_of(missing)
    assert names_of(LoadOptions(vae=files[0]))["vae"] == {"a.safetensors": files[0]}
    (tmp_path / "own" / "vae").mkdir(parents=True)
    (tmp_path / "own" / "vae" / "config.json").touch()
    assert names_of(LoadOptions(vae=str(tmp_path / "own")))["vae"] == {"own": str(tmp_path / "own")}


def test_plain_settings_are_taken() -> None:
    assert plain_overrides("image_guidance.adapter=auto") == ["image_guidance.adapter=auto"]
    assert plain_overrides(" optimizer.lr=0.1 \n\n loss.scale=2") == ["optimizer.lr=0.1", "loss.scale=2"]


def test_models_are_those_on_this_disk(tiny_folder: Path) -> None:
    assert models_here(str(tiny_folder))[:2] == [str(tiny_folder), "tinyworld"]
    assert methods_here("sd15")[0] == "lusd"
    assert methods_here("tinyworld")[0] == "localflow"
