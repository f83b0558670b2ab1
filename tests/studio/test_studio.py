"""The studio without a browser: what may be asked, what is kept of a run, what is shown, and who is let in."""

import json
import os
import threading
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import gradio
import numpy as np
import pytest
import torch
from gradio.data_classes import ImageData
from PIL import Image

from sdist.cli import main
from sdist.commands.app import read_login
from sdist.config.build import load_settings, resolve
from sdist.distillation.callbacks import Snapshot
from sdist.editors.loading import model_cache
from sdist.edits.request import Request
from sdist.edits.run_card import card_text
from sdist.errors import UserError
from sdist.files.images import png_bytes
from sdist.models.stable_diffusion import StableDiffusion
from sdist.studio import handle_card, handle_edit, handle_page, handle_source
from sdist.studio import html as page_html
from sdist.studio.bench import Bench
from sdist.studio.edits import Run, Work
from sdist.studio.form import CARD, Wanted, headline, reads, runs_of, words_of
from sdist.studio.limits import Limits, Offer, plain_overrides, reason
from sdist.studio.page import paintable, painted
from sdist.studio.plot import curves
from sdist.studio.restore import restored, text_of
from sdist.studio.server import Address, methods_here, models_here, serving
from sdist.studio.timeline import Timeline
from sdist.studio.visitor import Visitor, harmless
from sdist.studio.visitors import Visitors

from ..browser import wait_until

SETTINGS = "scale.threshold=0.01\nscale.cross_level=1\nscale.self_level=0"


NO_MODEL = StableDiffusion.__new__(StableDiffusion)  # these snapshots are not decoded


def snapshot(step: int, steps: int) -> Snapshot:
    return Snapshot(step, steps, 1 + step % 3, 0.02 * step, 0.01, torch.full((1, 4, 2, 2), float(step)), None, NO_MODEL)


def a_timeline(made: int, steps: int) -> Timeline:
    timeline = Timeline()
    for step in range(made + 1):
        timeline.add(snapshot(step, steps))
    return timeline


def wanted(picture: Path, model: Path, **changes) -> Wanted:
    given = {"source": "a cat", "target": "a cat wearing a hat", "methods": ["lusd"], "steps": 3, "overrides": SETTINGS}
    return Wanted(image=picture, model=str(model), **{**given, **changes})


def a_run(picture: Path, model: Path, **changes) -> Run:
    return runs_of(wanted(picture, model, **changes), Limits())[0]


def work_of(*runs: Run, **given) -> Work:
    return Work(runs, given.pop("limits", Limits()), **{"begins": lambda run: None, **given})


def ended(run: Run) -> Run:
    work_of(run)()
    assert run.result is not None
    return run


@pytest.fixture
def offer(tiny_folder: Path, tmp_path: Path) -> Offer:
    return Offer(Limits(), ["lusd", "dds"], [str(tiny_folder)], tmp_path, Bench(16))


@pytest.fixture
def visitor(offer: Offer) -> Visitor:
    return Visitor(offer, "a" * 32)


# --- timeline ----------------------------------------------------------------------------------------------------------


def test_a_timeline_keeps_the_stride_the_first_and_the_last() -> None:
    assert [frame.step for frame in a_timeline(13, 200).frames] == [0, 5, 10, 13]
    assert [frame.step for frame in a_timeline(3, 3).frames] == [0, 1, 2, 3]
    assert len(a_timeline(1000, 1000).frames) == 41
    timeline = a_timeline(13, 200)
    assert [timeline.at(step).step for step in (0, 4, 5, 12, 13, 99)] == [0, 0, 5, 10, 13, 13]
    assert (timeline.made, len(timeline.grad_std)) == (13, 13)


def test_strength_goes_on_a_line_through_source_and_edit() -> None:
    timeline = a_timeline(10, 10)
    assert float(timeline.latents(10, 0).mean()) == 0
    assert float(timeline.latents(10, 0.5).mean()) == 5
    assert float(timeline.latents(4, 1.5).mean()) == 6
    assert timeline.latents(10, 1) is timeline.frames[-1].latents


def test_curves_are_an_svg_with_a_bar_a_step() -> None:
    assert curves(Timeline()) == ""
    tree = ElementTree.fromstring(curves(a_timeline(6, 9)))
    assert len(tree.findall(".//rect")) == 6
    assert {path.get("class") for path in tree.iter("path")} == {"sd", "threshold"}


# --- edits in a thread -------------------------------------------------------------------------------------------------


def test_an_edit_is_watched_to_its_end(picture: Path, tiny_folder: Path) -> None:
    run, begun = a_run(picture, tiny_folder), []
    work_of(run, begins=begun.append)()
    assert begun == [run]
    assert run.timeline.made == 3
    assert np.array_equal(np.asarray(run.picture(3)), np.asarray(run.result.image))
    assert run.card["job"]["image"] == picture.name
    assert run.before((32, 32)).size == (32, 32)
    assert run.thumbnail.size == run.result.image.size


@pytest.mark.parametrize("how", ["stop", "unwanted"])
def test_an_edit_ends_early(picture: Path, tiny_folder: Path, how: str) -> None:
    away = threading.Event()
    run, left_out = a_run(picture, tiny_folder, steps=900), a_run(picture, tiny_folder)
    work = work_of(run, left_out, unwanted=away.is_set)
    work._begins = lambda run: (work.stop if how == "stop" else away).set()
    work()
    assert 0 < len(run.result.attempts) < 900
    assert run.timeline.frames[-1].step == len(run.result.attempts)
    assert (work.ended, work.problem, left_out.result) == (True, "", None)


def test_an_edit_that_fails_leaves_the_others(picture: Path, tiny_folder: Path) -> None:
    bad, good = a_run(picture, tiny_folder, target="cat " * 40), a_run(picture, tiny_folder, seed=1)
    work = work_of(bad, good)
    work()
    assert good.result is not None
    assert work.problem.startswith("lusd, seed 0: ")
    assert "this model reads 24" in work.problem
    small = work_of(a_run(picture, tiny_folder), a_run(picture, tiny_folder, seed=1), limits=Limits(side=16))
    small()
    assert small.problem == "size 32 x 32: this studio edits up to 16 pixels per side (--max-side)"


def test_one_edit_at_a_time_in_the_order_of_asking() -> None:
    bench, order, gates = Bench(2), [], [threading.Event() for _ in range(3)]

    def task(number: int):
        def do() -> None:
            order.append(number)
            gates[number].wait(10)

        return do

    tasks = [task(number) for number in range(3)]
    for each in tasks:
        bench.ask(each)
    with pytest.raises(UserError, match="2 edits are waiting already"):
        bench.ask(task(3))
    wait_until(lambda: order == [0])
    assert [bench.ahead(each) for each in tasks] == [0, 1, 2]
    assert [bench.leave(each) for each in tasks[:2]] == [False, True]
    for gate in gates:
        gate.set()
    wait_until(lambda: order == [0, 2])
    wait_until(lambda: not bench._line)
    bench.ask(tasks[1])  # the thread begins anew
    wait_until(lambda: order == [0, 2, 1])


# --- what is asked -----------------------------------------------------------------------------------------------------


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
        runs_of(Wanted(**{**wanted(picture, tiny_folder).__dict__, **changes}), Limits())


def test_plain_settings_are_taken() -> None:
    assert plain_overrides(" optimizer.lr=0.1 \n\n loss.scale=2") == ["optimizer.lr=0.1", "loss.scale=2"]


def test_models_are_those_on_this_disk(tiny_folder: Path) -> None:
    assert models_here(str(tiny_folder))[:2] == [str(tiny_folder), "tinyworld"]
    assert methods_here()[0] == "lusd"


# --- pictures ----------------------------------------------------------------------------------------------------------


def test_a_visitor_keeps_pictures_by_content(visitor: Visitor, picture: Path) -> None:
    first = visitor.take(picture, "../../a photo.PNG")
    assert first.name == "a_photo.PNG"
    assert first.is_relative_to(visitor.folder)
    assert visitor.take(picture, "again.png") == first
    visitor.work = work_of()
    visitor.close()
    assert visitor.work.stop.is_set()
    assert not visitor.folder.exists()


@pytest.mark.parametrize("name", ["", "..", "a/b\\c.png", "<b>.png", "ü" * 300 + ".jpeg"])
def test_names_are_harmless(name: str) -> None:
    assert all(c.isalnum() or c in "-_." for c in harmless(name))
    assert 3 < len(harmless(name)) <= 60


def test_bad_pictures_are_named_without_our_folders(visitor: Visitor, tmp_path: Path) -> None:
    text = tmp_path / "photo.png"
    text.write_text("not a picture")
    with pytest.raises(UserError, match=r"^image cat\.png is a text file, not an image that can be read: give a picture$"):
        visitor.take(text, "cat.png")
    Image.new("1", (9000, 9000)).save(text)
    with pytest.raises(UserError, match=r"^image cat\.png is 9000 x 9000; at most"):
        visitor.take(text, "cat.png")


def test_what_is_painted_is_the_mask() -> None:
    value = paintable(Image.new("RGB", (64, 32)))
    assert value["background"].size == (1024, 512)
    assert painted(None) is None
    assert painted(value) is None
    layer = Image.new("RGBA", (1024, 512))
    layer.paste((232, 89, 12, 255), (0, 0, 512, 512))
    mask = painted({**value, "layers": [layer]})
    assert np.asarray(mask)[:, :512].min() == 255
    assert np.asarray(mask)[:, 512:].max() == 0
    again = painted(paintable(Image.new("RGB", (64, 32)), mask))
    assert np.array_equal(np.asarray(again), np.asarray(mask))


# --- what is shown -----------------------------------------------------------------------------------------------------

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'


def test_prompts_are_text_on_the_stage(picture: Path, tiny_folder: Path) -> None:
    run = a_run(picture, tiny_folder)
    run.request = Request(picture, HOSTILE, "a cat" + HOSTILE, 0)
    run.timeline = a_timeline(1, 3)
    html = page_html.run_stage(run, Image.new("RGB", (32, 32)), 1, 1.0)
    assert "<script>" not in html
    assert html.count("<img ") == 2
    assert "&lt;script&gt;" in html


def test_errors_are_told_without_markup_or_traceback() -> None:
    assert reason(UserError("unknown word '<b>'")) == "unknown word '<b>'"
    assert "&lt;b&gt;" in page_html.problem("unknown word '<b>'")
    assert page_html.problem("") == ""
    assert reason(RuntimeError("/secret/path")) == "this failed (RuntimeError); the terminal shows where"


def test_a_picture_taken_from_the_timeline_is_replayed_bit_for_bit(
    picture: Path, tiny_folder: Path, tmp_path: Path, capsys
) -> None:
    run = ended(a_run(picture, tiny_folder, steps=4))
    card = page_html.card_at(run, 2, 1.0)
    (tmp_path / "step2.png").write_bytes(png_bytes(run.picture(2), json.dumps(card)))
    assert main(["replay", str(tmp_path / "step2.png"), "--images", str(picture.parent)]) == 0
    assert capsys.readouterr().out == "identical\n"
    assert page_html.card_at(run, 4, 0.5)["strength"] == 0.5


# --- run cards ---------------------------------------------------------------------------------------------------------


def test_a_card_restores_what_made_it(picture: Path, tiny_folder: Path, tmp_path: Path) -> None:
    run = ended(a_run(picture, tiny_folder, overrides="", methods=["dds"], seed=7, size="32x32"))
    card = restored(json.dumps(run.card), methods_here())
    assert (card.method, card.seed, card.steps, card.size, card.model) == ("dds", 7, 3, "32x32", str(tiny_folder))
    assert (card.source, card.target) == ("a cat", "a cat wearing a hat")
    again = a_run(picture, tiny_folder, overrides="", methods=[card.method], seed=card.seed, size=card.size, steps=card.steps)
    assert again.settings == run.settings
    (tmp_path / "x.png").write_bytes(png_bytes(run.result.image, json.dumps(run.card)))
    assert text_of(tmp_path / "x.png") == json.dumps(run.card) == card_text(tmp_path / "x.png")


def test_a_card_of_other_settings_stands_for_itself(picture: Path, tiny_folder: Path) -> None:
    run = ended(a_run(picture, tiny_folder))
    card = restored(json.dumps(run.card), methods_here())
    assert card.method is None
    again = a_run(picture, tiny_folder, methods=[CARD], card=card.settings, overrides="")
    assert again.settings == run.settings
    with pytest.raises(UserError, match="stand as they are"):
        a_run(picture, tiny_folder, methods=[CARD], card=card.settings)


@pytest.mark.parametrize(
    "text", ["{}", "[]", "null", "not json", '{"job": 3, "settings": {}}', "[" * 10_000, '"' + "x" * 300_000]
)
def test_a_damaged_card_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        restored(text, methods_here())


def test_a_card_cannot_read_the_environment() -> None:
    plain = json.dumps(load_settings("lusd").plain())
    assert resolve(json.loads(plain), "x")
    with pytest.raises(UserError, match="taken literally"):
        restored(json.dumps({"settings": {**json.loads(plain), "model": "${oc.env:HOME}"}, "job": {}}), methods_here())


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


# --- handlers ----------------------------------------------------------------------------------------------------------


def press(visitor: Visitor, target: str = "a cat wearing a hat", **changes) -> dict:
    """Everything between Edit and what stands on the page when its edits have ended."""
    given = {"methods": ["lusd"], "model": visitor.offer.models[0], "seed": 0, "seeds": 1, "steps": 3, "size": "native"}
    handle_edit.begin(visitor, None, "a cat", target, *{**given, "overrides": SETTINGS, **changes}.values())
    wait_until(lambda: visitor.work.ended, 60)
    return handle_edit.watch(visitor, "")


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
        handle_edit.begin(each, None, "a cat", "a cat wearing a hat", ["lusd"], offer.models[0], 0, 1, 3, "native", SETTINGS)
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


# --- a page that is loaded again ---------------------------------------------------------------------------------------


def test_a_reload_finds_everything_again(offer: Offer, picture: Path) -> None:
    visitors = Visitors(offer)
    visitor = visitors.of("b" * 32)
    assert handle_page.load(visitor)["methods"]["value"] == ["lusd"]
    handle_source.take(visitor, ImageData(path=str(picture), orig_name="photo.png"))
    mask = Image.new("L", (64, 64), 255)
    visitor.mask = mask
    fields = ["a cat", "a cat wearing a hat", ["lusd", "dds"], offer.models[0], 7, 2, 5, "keep", "loss.scale=2"]
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
    fields = ["a cat", "a cat wearing a hat", ["lusd"], visitor.offer.models[0], 0, 1, 900, "native", SETTINGS]
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
    methods = methods_here()
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


# --- the door ----------------------------------------------------------------------------------------------------------


def test_options_of_the_command(tmp_path: Path, capsys, monkeypatch) -> None:
    for arguments, message in ((["--port", "0"], "--port"), (["--max-steps", "0"], "--max-steps"), (["--queue", "0"], "--queue")):
        assert main(["app", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert main(["app", "--model", "tinyword"]) == 2
    assert "did you mean 'tinyworld'" in capsys.readouterr().err
    assert main(["app", "--login", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    monkeypatch.setattr("sdist.extras.find_spec", lambda name: None)
    assert main(["app"]) == 2
    assert "pip install 'sdist[app]'" in capsys.readouterr().err


def test_a_login_is_read_from_a_file_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "login").write_text("ann:a:b\n")
    assert read_login(tmp_path / "login", "other:x") == ("ann", "a:b")
    assert read_login(None, "ann:secret") == ("ann", "secret")
    assert read_login(None, None) is None
    for bad in ("ann", ":x", "ann:", "a:b\nc:d"):
        with pytest.raises(UserError, match="one line USER:PASSWORD"):
            read_login(None, bad)


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_the_server_lets_in_who_it_should_and_serves_its_own(tiny_folder: Path, tmp_path: Path) -> None:
    import httpx

    port = free_port()
    with serving(str(tiny_folder), Address(port=port, login=("ann", "secret")), Limits(upload=1000)) as address:
        with (
            pytest.raises(UserError, match=f"port {port} of 127.0.0.1 cannot be had"),
            serving("tinyworld", Address(port=port), Limits()),
        ):
            pass
        with httpx.Client(base_url=address) as client:
            assert client.get("/config").status_code == 401
            assert client.post("/login", data={"username": "ann", "password": "wrong"}).status_code == 400
            assert client.post("/login", data={"username": "ann", "password": "secret"}).status_code == 200
            page = client.get("/")
            assert "default-src 'self'" in page.headers["content-security-policy"]
            for path in ("/etc/hostname", str(Path("setup.cfg").resolve()), str(tmp_path), "../setup.cfg"):
                assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)
            large = client.post("/gradio_api/upload", files={"files": ("x.png", BytesIO(b"x" * 2000))})
            assert large.status_code == 413
            assert client.post("/gradio_api/upload", files={"files": ("x.png", BytesIO(b"x"))}).status_code == 200
            own = client.post("/gradio_api/upload", files={"files": ("x.png", small_png())}).json()[0]
            assert _take(client, own) == 200
            assert _take(client, "/etc/hostname") == 500  # not uploaded


PROXIES = {
    "none": {},
    "one that is not there": {"http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"},
    "for all, of a kind that needs a package": {"ALL_PROXY": "socks5://127.0.0.1:9"},
    "with exceptions": {"http_proxy": "http://127.0.0.1:9", "no_proxy": "example.org"},
    "of no kind": {"http_proxy": "nonsense://here"},
}


@pytest.mark.parametrize("proxies", PROXIES.values(), ids=PROXIES)
def test_the_studio_starts_whatever_proxies_there_are(tiny_folder: Path, monkeypatch, proxies: dict[str, str]) -> None:
    import httpx

    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    with serving(str(tiny_folder), Address(port=free_port()), Limits()) as address:
        assert httpx.get(address, trust_env=False).status_code == 200
        assert {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")} == proxies


@pytest.mark.parametrize(
    ("given", "root"),
    [("/studio", "http://example.org/studio"), ("https://b.org/x", "https://b.org/x"), ("", "http://example.org")],
)
def test_the_studio_below_a_path(tiny_folder: Path, given: str, root: str) -> None:
    import httpx

    with serving(str(tiny_folder), Address(port=free_port(), root_path=given), Limits()) as address:
        config = httpx.get(f"{address}config", headers={"host": "example.org"}, trust_env=False).json()
    assert config["root"] == root


def test_a_path_that_is_none(capsys) -> None:
    assert main(["app", "--root-path", "studio"]) == 2
    assert "--root-path must begin with / or be a URL, such as /studio, got 'studio'" in capsys.readouterr().err


def small_png() -> BytesIO:
    return BytesIO(png_bytes(Image.new("RGB", (32, 32))))


def _take(client, path: str) -> int:
    """Asks the page to take a file of the server, as a visitor who writes his own requests could."""
    handlers = client.get("/config").json()["dependencies"]
    take = next(each["id"] for each in handlers if each["targets"][0][1] == "upload")
    body = {"data": ["a" * 32, {"path": path, "meta": {"_type": "gradio.FileData"}}], "fn_index": take, "session_hash": "one"}
    return client.post("/gradio_api/run/predict", json=body).status_code
