"""Handlers for the page as a whole: it is loaded, perhaps again, and what is typed on it is noted."""

from typing import Any

import gradio as gr

from .form import CARD
from .handle_edit import buttons, gallery, seen_if_free
from .handle_source import ask, offered, placed, sized_here
from .html import about, problem
from .visitor import Visitor, form_of


def load(visitor: Visitor) -> dict[str, Any]:
    """Everything as it was on this tab; the first time there is nothing but the name of the tab."""
    form, run = visitor.form, visitor.shown
    changes = {"tab": visitor.tab, **buttons(visitor), "runs": gallery(visitor), **fields_of(visitor)}
    changes["words"] = offered(visitor)
    changes["problem"] = problem(visitor.work.problem if visitor.work is not None else "")
    if visitor.source is not None:
        changes |= placed(visitor, visitor.mask, afresh=False)
    if run is not None and run.timeline.frames:
        step, strength = visitor.look or (run.timeline.made, 1.0)
        changes |= seen_if_free(run, step, strength)
    return {**changes, "about": about(form.methods)}


def fields_of(visitor: Visitor) -> dict[str, Any]:
    """The fields as the form has them."""
    values = dict(vars(visitor.form))
    asked = ask(visitor, visitor.form.methods)  # with what the prompts are called
    values |= {name: update | {"value": values[name]} for name, update in asked.items()}
    offered_here = visitor.offer.methods + ([CARD] if visitor.card is not None else [])
    return {**values, "methods": gr.update(choices=offered_here, value=values["methods"])}


def note(visitor: Visitor, *fields: Any) -> dict[str, Any]:
    """Keeps what stands in the fields; says what follows from it."""
    visitor.form = form_of(*fields)
    return {"about": about(visitor.form.methods), "sized": sized_here(visitor), "words": offered(visitor)}
