"""What happens when something on the page is used: which handler reads what, and what its answer changes."""

from functools import partial
from typing import Any

import gradio as gr

from . import handle_card, handle_edit, handle_source
from .limits import Offer
from .page import Page

LOOK = "(...given) => { document.getElementById('stage').scrollIntoView({block: 'nearest'}); return given }"  # on a telephone


def connect(demo: gr.Blocks, p: Page, offer: Offer) -> None:
    """Edits wait for each other, since they share the model; everything else is answered while one is made."""
    plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    silent = {**plain, "queue": False}  # at once, but an error would not be shown
    shown = {**plain, "queue": True, "concurrency_limit": None}
    alone = {**shown, "concurrency_limit": 1, "concurrency_id": "edits"}
    newest: dict[str, Any] = {"trigger_mode": "always_last"}  # of what changes quickly, the last counts
    source, prompts = [p.picture, p.stage, p.editor, p.status], [p.source, p.target, p.words]
    seen = [p.stage, p.status, p.curves, p.at, p.strength, p.onward]
    buttons, numbers = [p.edit, p.stop], [p.methods, p.model, p.seed, p.seeds, p.steps, p.size, p.overrides]

    demo.load(lambda visitor: visitor, p.visitor, p.visitor, **silent)  # what was set is deleted when the visitor has gone
    taken = p.picture.upload(handle_source.take, [p.visitor, p.picture], source, **shown)
    taken.failure(lambda: None, None, p.picture, **silent)
    p.picture.clear(handle_source.drop, p.visitor, None, **silent)
    p.scenes.select(handle_source.choose_scene, p.visitor, [*source, *prompts], **shown)
    typed = [p.source.input, p.target.input, p.methods.input]
    gr.on(typed, handle_source.read_words, [p.source, p.target, p.methods], [p.words, p.masking], **silent, **newest)
    p.methods.input(handle_source.ask, p.methods, [p.source, p.target], **silent)
    p.words.input(handle_source.tick, [p.visitor, p.target, p.words], None, **silent)

    asked = [p.edit.click, p.target.submit]
    started = gr.on(asked, handle_edit.begin, p.visitor, [*buttons, p.status], js=LOOK, **silent)
    edited = started.success(
        partial(handle_edit.edit, offer), [p.visitor, p.editor, p.source, p.target, *numbers], [*seen, p.runs], **alone
    )
    edited.success(handle_edit.end, None, buttons, **silent)
    edited.failure(handle_edit.failed, p.visitor, [*buttons, p.status], **silent)
    p.stop.click(handle_edit.stop, p.visitor, p.status, **silent)
    gr.on([p.at.input, p.strength.input], handle_edit.scrub, [p.visitor, p.at, p.strength], p.stage, **shown, **newest)
    p.runs.select(handle_edit.choose_run, p.visitor, seen, **shown)
    p.onward.click(handle_edit.onward, [p.visitor, p.at, p.strength], [*source, *prompts], **shown)

    card = [p.visitor, p.cards, p.pasted]
    p.restore.click(partial(handle_card.restore, offer), card, [*source, *prompts, *numbers], **shown)
