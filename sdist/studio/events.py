"""What happens when something on the page is used: which handler reads what, and what its answer changes."""

from functools import partial

import gradio as gr

from . import giving, making, restoring
from .desk import Desk
from .limits import Offer
from .page import Page


def connect(demo: gr.Blocks, p: Page, offer: Offer) -> None:
    """Only edits are queued, one at a time, since they share the model; everything else is answered while one is made."""
    at_once = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    newest = {**at_once, "trigger_mode": "always_last"}  # of what changes quickly, the last counts
    queued = {**at_once, "queue": True, "concurrency_limit": 1, "concurrency_id": "edits"}
    source, prompts = [p.picture, p.stage, p.editor, p.status], [p.source, p.target, p.words]
    seen = [p.stage, p.status, p.curves, p.at, p.strength, p.onward]
    buttons, numbers = [p.edit, p.stop], [p.methods, p.model, p.seed, p.seeds, p.steps, p.size, p.overrides]

    demo.load(partial(Desk.new, offer.root), None, p.desk, **at_once)
    p.picture.upload(giving.take, [p.desk, p.picture], source, **at_once)
    p.picture.clear(giving.drop, p.desk, None, **at_once)
    p.scenes.select(giving.choose_scene, p.desk, [*source, *prompts], **at_once)
    typed = [p.source.input, p.target.input, p.methods.input]
    gr.on(typed, giving.read_words, [p.source, p.target, p.methods], [p.words, p.masking], **newest)

    started = gr.on([p.edit.click, p.target.submit], making.begin, p.desk, [*buttons, p.status], **at_once)
    edited = started.success(partial(making.edit, offer), [p.desk, p.editor, *prompts, *numbers], [*seen, p.runs], **queued)
    edited.then(making.end, p.desk, buttons, **at_once)
    p.stop.click(making.stop, p.desk, p.status, **at_once)
    gr.on([p.at.input, p.strength.input], making.scrub, [p.desk, p.at, p.strength], p.stage, **newest)
    p.runs.select(making.choose_run, p.desk, seen, **at_once)
    p.onward.click(making.onward, [p.desk, p.at, p.strength], [*source, *prompts], **at_once)

    given = [p.desk, p.cards, p.pasted]
    p.restore.click(partial(restoring.restore, offer), given, [*source, *prompts, *numbers], **at_once)
