"""What happens when something on the page is used: which handler reads what, and what its answer changes."""

from functools import partial

import gradio as gr

from . import handle_card as restoring
from . import handle_edit as making
from . import handle_source as giving
from .limits import Offer
from .page import Page

LOOK = "(...given) => { document.getElementById('stage').scrollIntoView({block: 'nearest'}); return given }"  # on a telephone


def connect(demo: gr.Blocks, p: Page, offer: Offer) -> None:
    """Edits wait for each other, since they share the model; everything else is answered while one is made."""
    plain = {"show_progress": "hidden", "api_visibility": "private"}
    silent = {**plain, "queue": False}  # at once, but an error would not be shown
    told = {**plain, "queue": True, "concurrency_limit": None}
    alone = {**told, "concurrency_limit": 1, "concurrency_id": "edits"}
    newest = {"trigger_mode": "always_last"}  # of what changes quickly, the last counts
    source, prompts = [p.picture, p.stage, p.editor, p.status], [p.source, p.target, p.words]
    seen = [p.stage, p.status, p.curves, p.at, p.strength, p.onward]
    buttons, numbers = [p.edit, p.stop], [p.methods, p.model, p.seed, p.seeds, p.steps, p.size, p.overrides]

    demo.load(lambda desk: desk, p.desk, p.desk, **silent)  # a desk that was set is deleted when its visitor has gone
    taken = p.picture.upload(giving.take, [p.desk, p.picture], source, **told)
    taken.failure(lambda: None, None, p.picture, **silent)
    p.picture.clear(giving.drop, p.desk, None, **silent)
    p.scenes.select(giving.choose_scene, p.desk, [*source, *prompts], **told)
    typed = [p.source.input, p.target.input, p.methods.input]
    gr.on(typed, giving.read_words, [p.source, p.target, p.methods], [p.words, p.masking], **silent, **newest)

    p.words.input(giving.tick, [p.desk, p.target, p.words], None, **silent)

    asked = [p.edit.click, p.target.submit]
    started = gr.on(asked, making.begin, p.desk, [*buttons, p.status], js=LOOK, **silent)
    edited = started.success(
        partial(making.edit, offer), [p.desk, p.editor, p.source, p.target, *numbers], [*seen, p.runs], **alone
    )
    edited.success(making.end, None, buttons, **silent)
    edited.failure(making.failed, p.desk, [*buttons, p.status], **silent)
    p.stop.click(making.stop, p.desk, p.status, **silent)
    gr.on([p.at.input, p.strength.input], making.scrub, [p.desk, p.at, p.strength], p.stage, **told, **newest)
    p.runs.select(making.choose_run, p.desk, seen, **told)
    p.onward.click(making.onward, [p.desk, p.at, p.strength], [*source, *prompts], **told)

    given = [p.desk, p.cards, p.pasted]
    p.restore.click(partial(restoring.restore, offer), given, [*source, *prompts, *numbers], **told)
