"""What happens when something on the page is used: which handler reads what, and what its answer changes."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, cast

import gradio as gr

from . import handle_card, handle_edit, handle_page, handle_source
from .html import problem
from .limits import reason
from .page import Page
from .visitor import Visitor
from .visitors import Visitors

PROMPTS = ("source", "target", "words")
NUMBERS = (
    "methods", "model", "seed", "seeds", "steps", "size", "overrides", "keep_background", "output_size", "crop", "vae", "lora",
    "embedding",
)  # fmt: skip
FIELDS = ("source", "target", *NUMBERS)  # as form_of takes them
SOURCE = ("picture", "stage", "editor", "sized", "status")
SEEN = ("stage", "status", "details", "curves", "at", "strength", "onward")
BUTTONS = ("edit", "stop", "clock")

Handler = Callable[..., dict[str, Any]]


class Events:
    """Connects handlers to a page. A handler answers with new values by the names of components; what it raises is shown."""

    def __init__(self, page: Page, visitors: Visitors) -> None:
        self._page = page
        cast(Any, page.tab).preprocess = visitors.of  # so that a handler gets the visitor in place of the tab's name

    def on(
        self, triggers: Sequence[Any], handler: Handler, reads: Sequence[str], changes: Sequence[str], newest: bool = False,
        js: str | None = None, clears: bool = True,
    ) -> Any:  # fmt: skip
        """`newest`: of what changes quickly, the last counts. `clears`: a problem that was told before is over."""
        outputs = [*changes, "problem"]
        return gr.on(
            list(triggers), self._answer(handler, outputs, clears), self._named(["tab", *reads]), self._named(outputs), js=js,
            show_progress="hidden", api_visibility="private", queue=False, trigger_mode="always_last" if newest else "once",
        )  # fmt: skip

    def _named(self, names: Sequence[str]) -> list[Any]:
        return [getattr(self._page, name) for name in names]

    def _answer(self, handler: Handler, outputs: Sequence[str], clears: bool) -> Callable[..., Any]:
        @wraps(handler)
        def answer(visitor: Visitor, *given: Any) -> Any:
            changes = {"problem": problem("")} if clears else {}
            try:
                changes |= handler(visitor, *given) if visitor.tab else {}  # else the page is just being loaded
            except Exception as error:
                changes = {"problem": problem(reason(error))}
            answers = [changes.get(name, gr.skip()) for name in outputs]
            return answers if len(answers) > 1 else answers[0]

        return answer


def connect(demo: gr.Blocks, p: Page, visitors: Visitors) -> None:
    """Every handler answers at once; edits are made meanwhile, and the page asks for their news."""
    events = Events(p, visitors)
    everything = dict.fromkeys([*SOURCE, *PROMPTS, *NUMBERS, *SEEN, *BUTTONS, "tab", "runs", "about"])
    events.on([demo.load], handle_page.load, [], [*everything], js="async () => [await sdistStudio.tab()]", clears=False)

    events.on([p.picture.upload], handle_source.take, ["picture"], SOURCE)
    events.on([p.picture.clear], handle_source.drop, [], ["sized"])
    events.on([p.scenes.select], handle_source.choose_scene, [], [*SOURCE, *PROMPTS])
    typed = [getattr(p, name).input for name in FIELDS]
    events.on(typed, handle_page.note, FIELDS, ["about", "sized", "words"], newest=True)
    events.on([p.methods.input], handle_source.ask, ["methods"], ["source", "target"], clears=False)
    events.on([p.words.input], handle_source.tick, ["target", "words"], [], clears=False)
    events.on([p.brushed.click], handle_source.paint, ["editor"], [], newest=True, clears=False)

    asked = [p.edit.click, p.target.submit]
    begun = events.on(asked, handle_edit.begin, ["editor", *FIELDS], [*BUTTONS, "status"])
    begun.then(None, js="() => sdistStudio.look()")
    looked = [*SEEN, *BUTTONS, "runs", "mark"]
    events.on([p.clock.tick], handle_edit.watch, ["mark"], looked, clears=False)
    events.on([p.stop.click], handle_edit.stop, [], ["status"])
    events.on([p.at.input, p.strength.input], handle_edit.scrub, ["at", "strength"], ["stage"], newest=True)
    events.on([p.runs.select], handle_edit.choose_run, [], SEEN)
    events.on([p.onward.click], handle_edit.onward, ["at", "strength"], [*SOURCE, *PROMPTS])
    events.on([p.restore.click], handle_card.restore, ["cards", "pasted"], [*SOURCE, *PROMPTS, *NUMBERS, "about"])
