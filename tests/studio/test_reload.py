"""The studio without a browser: a page that is loaded again, and a visitor who is away."""

from pathlib import Path

import gradio
import pytest
from gradio.data_classes import ImageData
from PIL import Image

from sdist.config.build import load_settings
from sdist.editors.loading import model_cache
from sdist.studio import handle_edit, handle_page, handle_source
from sdist.studio import html as page_html
from sdist.studio.form import headline
from sdist.studio.limits import Offer
from sdist.studio.page import painted
from sdist.studio.server import methods_here
from sdist.studio.visitor import Visitor
from sdist.studio.visitors import Visitors

from ..browser import wait_until
from .samples import REST, SETTINGS, a_run, a_timeline, press


def test_a_reload_finds_everything_again(offer: Offer, picture: Path) -> None:
    visitors = Visitors(offer)
    visitor = visitors.of("b" * 32)
    assert handle_page.load(visitor)["methods"]["value"] == ["lusd"]
    handle_source.take(visitor, ImageData(path=str(picture), orig_name="photo.png"))
    mask = Image.new("L", (64, 64), 255)
    visitor.mask = mask
    fields = ["a cat", "a cat wearing a hat", ["lusd", "dds"], offer.models[0], 7, 2, 5, "keep", "loss.scale=2", *REST.values()]
    handle_page.note(visitor, *fields)
    handle_source.tick(visitor, "a cat wearing a hat", ["cat"])
    back = handle_page.load(visitors.of("b" * 32))
    assert back["tab"] == "b" * 32
    assert (back["source"]["value"], back["target"]["value"]) == ("a cat", "a cat wearing a hat")
    assert [back[name] for name in ("seed", "seeds", "steps", "size", "overrides")] == [7, 2, 5, "keep", "loss.scale=2"]
    assert back["methods"]["value"] == ["lusd", "dds"]
    assert back["words"]["value"] == ["cat"]
    assert back["picture"].size == Image.open(picture).size
    assert painted(back["editor"]).getextrema() == (255, 255)
    assert "the source picture" in back["stage"]
    assert visitors.of("c" * 32) is not visitor
    assert handle_page.load(visitors.of("c" * 32))["source"]["value"] == ""


def test_an_edit_goes_on_while_its_page_is_loaded_again(visitor: Visitor, picture: Path) -> None:
    visitor.source = visitor.take(picture, "photo.png")
    press(visitor)
    fields = ["a cat", "a cat wearing a hat", ["lusd"], visitor.offer.models[0], 0, 1, 900, "native", SETTINGS, *REST.values()]
    handle_edit.begin(visitor, None, *fields)
    wait_until(lambda: visitor.shown.timeline.steps == 900, 60)
    back = handle_page.load(visitor)
    assert (back["edit"]["visible"], back["stop"]["visible"]) == (False, True)
    assert "of 900" in back["status"]
    assert len(back["runs"]["value"]) == 1
    handle_edit.stop(visitor)
    wait_until(lambda: visitor.work.ended, 60)
    handle_edit.scrub(visitor, 0, 0.5)
    back = handle_page.load(visitor)
    assert "stopped after" in back["status"]
    assert (back["at"]["value"], back["strength"]["value"]) == (0, 0.5)
    assert len(back["runs"]["value"]) == 2


AWAY = {  # seconds since the page was there, whether it said goodbye: whether edits end, whether all is removed
    "a reload": (2, True, False, False),
    "closed": (3700, True, True, True),
    "asleep": (3700, False, True, False),
    "asleep overnight": (12 * 3600, False, True, False),
    "asleep for days": (49 * 3600, False, True, True),
}


@pytest.mark.parametrize("name", AWAY)
def test_how_long_one_who_is_away_is_kept(name: str, offer: Offer, picture: Path) -> None:
    seconds, says_goodbye, ends, is_gone = AWAY[name]
    visitors = Visitors(offer)
    visitor = visitors.of("b" * 32)
    visitor.take(picture, "photo.png")
    if says_goodbye:
        visitors.left("b" * 32)
    visitor.seen -= seconds
    assert visitor.is_away() == ends
    visitors.sweep()
    assert visitor.folder.exists() != is_gone
    assert (visitors.of("b" * 32) is visitor) != is_gone
    visitors.sweep(everyone=True)
    assert not visitor.folder.exists()


@pytest.mark.parametrize("name", ["", None, "b" * 31, "../" * 8, "B" * 32])
def test_what_is_no_tab(name: str | None, offer: Offer) -> None:
    visitors = Visitors(offer)
    assert visitors.of(name) is not visitors.of(name)
    assert visitors.of(name).tab == ""  # for whom no handler does anything


def test_older_runs_keep_their_ends(visitor: Visitor, picture: Path, tiny_folder: Path) -> None:
    for seed in range(42):
        run = a_run(picture, tiny_folder, seed=seed)
        run.timeline = a_timeline(5, 5)
        visitor.show(run)
    assert [run.request.seed for run in visitor.runs] == list(range(2, 42))
    assert [len(run.timeline.frames) for run in visitor.runs] == [2] * 28 + [6] * 12
    assert [frame.step for frame in visitor.runs[0].timeline.frames] == [0, 5]


def test_the_size_of_the_edit_is_said(visitor: Visitor, tiny_folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (100, 70), "teal").save(tmp_path / "wide.png")
    a_run(tmp_path / "wide.png", tiny_folder)
    model_cache.get(load_settings("lusd", model=str(tiny_folder)))
    visitor.source = visitor.take(tmp_path / "wide.png", "wide.png")
    native = handle_source.sized_here(visitor)
    assert "wide.png, 100 x 70 pixels, edited at " in native
    for size, said in (
        ("keep", "edited at 100 x 68"),
        ("nonsense", "native, keep or WIDTHxHEIGHT"),
        ("64x32", "edited at 64 x 32"),
    ):
        visitor.form.size = size
        assert said in handle_source.sized_here(visitor)


def test_methods_have_a_line_each_and_ablations_come_last() -> None:
    methods = methods_here("tinyworld")
    lines = page_html.about(methods)
    assert lines.count("<dt>") == lines.count("<dd>") == len(methods)
    assert "<dd></dd>" not in lines
    ablations = ["ablation" in headline(name) for name in methods]
    assert any(ablations)
    assert ablations == sorted(ablations)


def test_a_scene_brings_its_prompts(visitor: Visitor) -> None:
    answer = handle_source.choose_scene(visitor, gradio.SelectData(None, {"index": 0, "value": None}))
    assert visitor.source is not None
    assert answer["source"] != answer["target"]
    assert answer["words"]["value"]
    visitor.form.methods = ["dds"]
    assert not handle_source.choose_scene(visitor, gradio.SelectData(None, {"index": 1, "value": None}))["words"]["visible"]
    visitor.form.methods = ["lime", "instruct_pix2pix"]
    told = handle_source.choose_scene(visitor, gradio.SelectData(None, {"index": 0, "value": None}))
    assert told["target"] == visitor.form.target != answer["target"]
