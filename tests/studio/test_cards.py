"""The studio without a browser: run cards that are restored."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sdist.config.build import load_settings, resolve
from sdist.edits.run_card import card_text
from sdist.errors import UserError
from sdist.files.images import png_bytes
from sdist.studio import handle_card
from sdist.studio.form import CARD
from sdist.studio.restore import RestoredEdit, restored, text_of
from sdist.studio.server import methods_here
from sdist.studio.visitor import Visitor

from .samples import a_run, ended


def test_a_card_restores_what_made_it(picture: Path, tiny_folder: Path, tmp_path: Path) -> None:
    run = ended(a_run(picture, tiny_folder, overrides="", methods=["dds"], seed=7, size="32x32"))
    card = restored(json.dumps(run.card), methods_here("tinyworld"))
    assert (card.method, card.seed, card.steps, card.size, card.model) == ("dds", 7, 3, "32x32", str(tiny_folder))
    assert (card.source, card.target) == ("a cat", "a cat wearing a hat")
    again = a_run(picture, tiny_folder, overrides="", methods=[card.method], seed=card.seed, size=card.size, steps=card.steps)
    assert again.settings == run.settings
    (tmp_path / "x.png").write_bytes(png_bytes(run.result.image, json.dumps(run.card)))
    assert text_of(tmp_path / "x.png") == json.dumps(run.card) == card_text(tmp_path / "x.png")


def test_a_card_of_other_settings_stands_for_itself(picture: Path, tiny_folder: Path) -> None:
    run = ended(a_run(picture, tiny_folder))
    card = restored(json.dumps(run.card), methods_here("tinyworld"))
    assert card.method is None
    again = a_run(picture, tiny_folder, methods=[CARD], card=card.settings, overrides="")
    assert again.settings == run.settings
    with pytest.raises(UserError, match="stand as they are"):
        a_run(picture, tiny_folder, methods=[CARD], card=card.settings)


def test_a_card_brings_back_how_the_model_was_read_and_not_where_it_stood(picture: Path, tiny_folder: Path) -> None:
    run = ended(a_run(picture, tiny_folder, overrides="", methods=["dds"]))

    def back(**changes: object) -> RestoredEdit:
        card = {**run.card, "settings": {**run.card["settings"], **changes}}
        return restored(json.dumps(card), methods_here("tinyworld"))

    assert back(offload="model", device="cuda:1", compile="none", checkpoint=True).method == "dds"
    for name, value in {"storage": "fp8", "clip_skip": 1, "prompt_blocks": 2, "prompt_weights": True}.items():
        card = back(**{name: value}, offload="model")
        assert card.method is None
        again = a_run(picture, tiny_folder, methods=[CARD], card=card.settings, overrides="")
        assert again.settings == replace(run.settings, **{name: value})


@pytest.mark.parametrize(
    "text", ["{}", "[]", "null", "not json", '{"job": 3, "settings": {}}', "[" * 10_000, '"' + "x" * 300_000]
)
def test_a_damaged_card_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        restored(text, methods_here("tinyworld"))


def test_a_card_cannot_read_the_environment() -> None:
    plain = json.dumps(load_settings("lusd").plain())
    assert resolve(json.loads(plain), "x")
    with pytest.raises(UserError, match="taken literally"):
        restored(json.dumps({"settings": {**json.loads(plain), "model": "${oc.env:HOME}"}, "job": {}}), methods_here("tinyworld"))


@pytest.mark.parametrize("key", ["vae", "lora", "embedding", "model_config", "variant"])
def test_a_card_cannot_have_files_of_this_machine_loaded(key: str, visitor: Visitor, tiny_folder: Path) -> None:
    value = ["/etc/x.safetensors"] if key in ("lora", "embedding") else "/etc/x"
    settings = {**load_settings("lusd").plain(), "model": str(tiny_folder), key: value}
    request = {"source": "a", "target": "b", "image": "a.png", "sha256": "0", "mask_sha256": None, "seed": 0}
    card = {"settings": settings, "job": request, "words": []}
    with pytest.raises(UserError, match=r"that this studio does not load|which this studio does not offer"):
        handle_card.restore(visitor, [], json.dumps(card))
    assert restored(json.dumps({**card, "settings": load_settings("lusd").plain()}), methods_here("tinyworld")).method == "lusd"


def test_a_card_brings_back_what_was_put_on_the_model_and_into_its_picture(visitor: Visitor, tiny_folder: Path) -> None:
    visitor.offer = replace(visitor.offer, added={"lora": {"style.safetensors:0.8": "/files/style.safetensors:0.8"}})
    changed = {"lora": ["/files/style.safetensors:0.8"], "keep_background": True, "crop": "auto"}
    request = {"source": "a", "target": "b", "image": "a.png", "sha256": "0", "mask_sha256": None, "seed": 0}
    card = {"settings": {**load_settings("lusd", model=str(tiny_folder)).plain(), **changed}, "job": request, "words": []}
    back = handle_card.restore(visitor, [], json.dumps(card))
    assert (back["methods"]["value"], back["lora"], back["vae"]) == (["lusd"], ["style.safetensors:0.8"], "")
    assert (back["keep_background"], back["output_size"], back["crop"]) == (True, "edit", "auto")


def test_restoring_finds_the_source_by_its_content(visitor: Visitor, picture: Path, tiny_folder: Path, tmp_path: Path) -> None:
    run = ended(a_run(picture, tiny_folder, overrides="", methods=["dds"]))
    (tmp_path / "card.json").write_text(json.dumps(run.card))
    back = handle_card.restore(visitor, [str(tmp_path / "card.json"), str(picture)], "")
    assert visitor.source is not None
    assert (back["source"]["value"], back["target"]["value"]) == ("a cat", "a cat wearing a hat")
    assert back["methods"]["value"] == ["dds"]
    assert not back["words"]["visible"]  # dds follows none
    assert visitor.ticked is None
    ticked = ended(a_run(picture, tiny_folder, chosen=["cat"]))
    back = handle_card.restore(visitor, [], json.dumps(ticked.card))
    assert visitor.ticked == ("a cat wearing a hat", ["cat"])
    assert back["words"]["value"] == ["cat"]
    with pytest.raises(UserError, match="give a PNG"):
        handle_card.restore(visitor, [str(picture)], "")
    visitor.offer = replace(visitor.offer, models=["tinyworld"])
    with pytest.raises(UserError, match="does not offer"):
        handle_card.restore(visitor, [], json.dumps(run.card))
