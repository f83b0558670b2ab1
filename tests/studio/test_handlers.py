"""The studio without a browser: what the page does when something is pressed."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from gradio.data_classes import ImageData
from PIL import Image

from sdist.config.build import load_settings
from sdist.editors.loading import model_cache
from sdist.errors import UserError
from sdist.studio import edits, handle_edit, handle_page, handle_source
from sdist.studio.form import CARD
from sdist.studio.limits import Offer
from sdist.studio.visitor import Visitor

from ..browser import wait_until
from .samples import REST, SETTINGS, press


def test_an_edit_is_watched_and_its_result_can_be_gone_on_with(visitor: Visitor, picture: Path) -> None:
    visitor.source = visitor.take(picture, "photo.png")
    last = press(visitor, seeds=2)
    assert "Save PNG" in last["stage"]
    assert "done" in last["status"]
    assert handle_edit.watch(visitor, last["mark"]) == {}  # nothing new
    assert len(visitor.ended) == len(last["runs"]["value"]) == 2
    assert [run.request.words for run in visitor.ended] == [(), ()]
    assert handle_edit.scrub(visitor, 1, 0.5) != handle_edit.scrub(visitor, 3, 1.0)
    onward = handle_edit.onward(visitor, 3, 1.0)
    assert (onward["source"], onward["target"]) == ("a cat wearing a hat", "")
    assert visitor.source.name == "photo_edited.png"
    assert np.array_equal(np.asarray(Image.open(visitor.source)), np.asarray(visitor.ended[-1].result.image))


def test_an_edit_that_ends_by_itself_is_done(visitor: Visitor, picture: Path) -> None:
    visitor.source = visitor.take(picture, "photo.png")
    last = press(visitor, methods=["dds"], steps=12, overrides="stop.share=0.9\nstop.window=3")
    made = visitor.shown.timeline.made
    assert made < 12
    assert f"done after {made} of 12 steps" in last["status"]


def test_words_that_the_model_does_not_know_are_told_on_the_page(visitor: Visitor, picture: Path, monkeypatch) -> None:
    monkeypatch.setattr("sdist.editors.loading.unknown_words", lambda model, prompts: f"unknown: {prompts[1]}")
    visitor.source = visitor.take(picture, "photo.png")
    assert press(visitor)["status"].count("; unknown: a cat wearing a hat</span>") == 1


def test_before_the_first_step_the_picture_is_prepared(visitor: Visitor, picture: Path, monkeypatch) -> None:
    gate, make = threading.Event(), edits.make
    monkeypatch.setattr(edits, "make", lambda *given: gate.wait(60) and make(*given))
    visitor.source = visitor.take(picture, "photo.png")
    handle_edit.begin(
        visitor,
        None,
        "a cat",
        "a cat wearing a hat",
        ["lusd"],
        visitor.offer.models[0],
        0,
        1,
        3,
        "native",
        SETTINGS,
        *REST.values(),
    )
    wait_until(lambda: visitor.work.run is not None and not visitor.work.loading, 60)
    told = handle_edit.watch(visitor, "")["status"]
    gate.set()
    assert "lusd, seed 0: preparing the picture" in told
    assert "value=" not in told
    wait_until(lambda: visitor.work.ended, 60)


@pytest.fixture
def turns(visitor: Visitor, picture: Path) -> Iterator[ThreadPoolExecutor]:
    """A thread that looks while another edits with a model whose networks take turns; the visitor's edit has ended."""
    visitor.source = visitor.take(picture, "photo.png")
    visitor.card = load_settings("dds", model=visitor.offer.models[0], offload="model").plain()
    assert "Save PNG" in press(visitor, methods=[CARD], overrides="")["stage"]
    with ThreadPoolExecutor(1) as pool, model_cache.get(visitor.shown.settings).model.alone:
        yield pool


def test_where_networks_take_turns_a_result_is_seen_while_another_edits(visitor: Visitor, turns: ThreadPoolExecutor) -> None:
    chosen = gr.SelectData(None, {"index": 0, "value": None})
    looks = [
        turns.submit(handle_edit.watch, visitor, ""),
        turns.submit(handle_page.load, visitor),
        turns.submit(handle_edit.scrub, visitor, 3, 1.0),
        turns.submit(handle_edit.choose_run, visitor, chosen),
    ]
    assert ["Save PNG" in look.result(60)["stage"] for look in looks] == [True] * 4
    assert turns.submit(handle_edit.onward, visitor, 3, 1.0).result(60)["source"] == "a cat wearing a hat"


def test_where_networks_take_turns_what_must_be_decoded_comes_later(visitor: Visitor, turns: ThreadPoolExecutor) -> None:
    for handler in (handle_edit.scrub, handle_edit.onward):
        with pytest.raises(UserError, match="shown when no edit is being made"):
            turns.submit(handler, visitor, 1, 0.5).result(60)
    visitor.look, visitor.rests = (1, 0.5), 0.0
    loaded = turns.submit(handle_page.load, visitor).result(60)
    assert "shown when no edit is being made" in loaded["status"]
    assert "the source picture" in loaded["stage"]
    visitor.work.ended, visitor.shown.result = False, None  # as if it were being made
    looked = turns.submit(handle_edit.watch, visitor, "").result(60)
    assert "step 3 of 3" in looked["status"]
    assert "stage" not in looked


def test_ticked_words_hold_for_their_target(visitor: Visitor, picture: Path) -> None:
    visitor.source = visitor.take(picture, "photo.png")
    handle_source.tick(visitor, "a cat wearing a hat", ["cat", "hat"])
    for target in ("a cat wearing a hat", "a cat wearing a red hat"):
        press(visitor, target)
    assert [run.request.words for run in visitor.ended] == [("cat", "hat"), ()]


def test_two_visitors_share_nothing_but_the_line(offer: Offer, picture: Path) -> None:
    one, two = Visitor(offer), Visitor(offer)
    for each in (one, two):
        each.source = each.take(picture, "photo.png")
    gate = threading.Event()
    offer.bench.ask(gate.wait)
    for each in (one, two):
        handle_edit.begin(
            each, None, "a cat", "a cat wearing a hat", ["lusd"], offer.models[0], 0, 1, 3, "native", SETTINGS, *REST.values()
        )
    with pytest.raises(UserError, match="is being made"):
        press(one)
    assert "waiting: 2 of other visitors" in handle_edit.watch(two, "")["status"]
    handle_edit.stop(one)
    assert one.work.ended  # at once, since it had not begun
    assert "stopped before it began" in handle_edit.watch(one, "")["status"]
    gate.set()
    wait_until(lambda: two.work.ended, 60)
    assert (len(one.runs), len(two.runs)) == (0, 1)
    assert one.source != two.source


def test_a_look_does_not_hide_that_an_edit_is_stopping(visitor: Visitor, picture: Path) -> None:
    visitor.source = visitor.take(picture, "photo.png")
    press(visitor)
    wait_until(lambda: visitor.work.ended, 60)
    visitor.work.ended = False
    assert "done" in handle_edit.watch(visitor, "")["status"]
    visitor.work.stop.set()
    visitor.rests = 0.0
    looked = handle_edit.watch(visitor, "")
    assert "stage" in looked
    assert "stopping" in looked["status"]
    visitor.work.ended = True


def test_what_fails_is_said_and_does_not_hide_what_was_made(visitor: Visitor, picture: Path) -> None:
    visitor.source = visitor.take(picture, "photo.png")
    press(visitor)
    failed = press(visitor, "cat " * 40)
    assert "this model reads 24" in failed["problem"]
    assert "nothing" not in failed["status"]
    assert len(visitor.ended) == 1


def test_a_bad_upload_leaves_the_picture_that_was_there(visitor: Visitor, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    bad, good = (ImageData(path=str(path), orig_name=path.name) for path in (tmp_path / "text.png", picture))
    assert handle_source.take(visitor, bad)["picture"] is None
    handle_source.take(visitor, good)
    before = visitor.source
    answer = handle_source.take(visitor, bad)
    assert "is a text file" in answer["problem"]
    assert answer["picture"].size == Image.open(picture).size
    assert visitor.source == before


def test_the_last_look_is_at_the_last_step(visitor: Visitor, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit that ends while it is looked at is looked at once more, and only then the page rests."""
    visitor.source = visitor.take(picture, "photo.png")
    press(visitor)
    ended, visitor.work.ended = visitor.work.ended, False
    seen = handle_edit.seen

    def seen_while_it_ends(*given):
        visitor.work.ended = ended
        return seen(*given)

    monkeypatch.setattr(handle_edit, "seen", seen_while_it_ends)
    monkeypatch.setattr(handle_edit, "SHARE", 0)
    visitor.rests = 0.0
    assert "clock" not in handle_edit.watch(visitor, "")
    assert "clock" in handle_edit.watch(visitor, "")
