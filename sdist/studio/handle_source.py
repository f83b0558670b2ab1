"""Handlers for what a visitor gives: a picture, a scene, a mask, words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData
from PIL import Image

from ..errors import UserError
from ..files.images import load_image
from ..tinyworld.instructions import instructions_of
from .form import CARD, edited_size, read_by, reads, words_of
from .html import problem, sized, small, source_stage, status
from .limits import reason
from .page import paintable, painted
from .scenes import scenes
from .visitor import Visitor


def take(visitor: Visitor, upload: ImageData | None) -> dict[str, Any]:
    """A picture that was dropped; one that cannot be read leaves the picture that was there."""
    try:
        if upload is None or not upload.path:
            raise UserError("no file came with this")
        visitor.source = visitor.take(Path(upload.path), upload.orig_name or "picture.png")
    except Exception as error:
        picture = None if visitor.source is None else small(load_image(visitor.source))
        return {"picture": picture, "problem": problem(reason(error))}
    return placed(visitor)


def drop(visitor: Visitor) -> dict[str, Any]:
    visitor.source = visitor.mask = None
    return {"sized": sized("")}


def placed(visitor: Visitor, mask: Image.Image | None = None, afresh: bool = True) -> dict[str, Any]:
    """The source as picture, stage, mask editor (with a mask that was painted before) and status show it.

    `afresh`: it has just been given, so that no run is looked at any more.
    """
    assert visitor.source is not None
    image = small(load_image(visitor.source))
    changes = {"picture": image, "stage": source_stage(image), "editor": paintable(image, mask), "sized": sized_here(visitor)}
    if afresh:
        visitor.shown, visitor.mask = None, mask
        changes["status"] = status("")
    return changes


def sized_here(visitor: Visitor) -> str:
    """The picture's name and size, and the size of its edit, where the model is in memory."""
    form, name = visitor.form, "" if visitor.source is None else visitor.source.name
    if visitor.source is None:
        return sized("")
    try:
        return sized(f"{name}, {edited_size(visitor.source, form.methods, form.model, form.size)}")
    except UserError as error:
        return sized(f"{name}: {str(error).replace(str(visitor.source), name)}")


def choose_scene(visitor: Visitor, event: gr.SelectData) -> dict[str, Any]:
    """A drawn scene with the prompts of an edit, or its instruction where nothing else is read."""
    pair = scenes()[event.index]
    visitor.source = visitor.take_image(pair.source_image, f"scene_{event.index}")
    instructed = _instructed(visitor.form.methods)
    target = instructions_of(scenes())[event.index] if instructed and all(instructed) else pair.target
    visitor.form.source, visitor.form.target = pair.source, target
    return {**placed(visitor), "source": pair.source, "target": target, "words": offered(visitor)}


def paint(visitor: Visitor, editor: dict[str, Any] | None) -> dict[str, Any]:
    """Keeps what is painted."""
    visitor.mask = painted(editor)
    return {}


def ask(visitor: Visitor, methods: list[str] | None) -> dict[str, Any]:
    """What the prompts are for: methods that read an instruction need no other."""
    instructed = _instructed(methods or ())
    label = "What to do" if instructed and all(instructed) else "What should be there"
    if any(instructed) and not all(instructed):
        label += ", or what to do"
    return {"source": gr.update(visible=not (instructed and all(instructed))), "target": gr.update(label=label)}


def _instructed(methods: Sequence[str]) -> list[bool]:
    return [m != CARD and "instruction" in read_by(m) for m in methods]


def tick(visitor: Visitor, target: str, words: list[str]) -> dict[str, Any]:
    """Remembers a choice with its target, since the words on the page lag behind what is typed."""
    visitor.ticked = (target, words)
    return {}


def offered(visitor: Visitor) -> Any:
    """The target's words to choose from, where a method reads them; without a choice, those are ticked that it follows."""
    form = visitor.form
    if not reads(form.methods, "words"):
        return gr.update(visible=False)
    every, ticked = words_of(form.source, form.target)
    if visitor.ticked is not None and visitor.ticked[0] == form.target:
        ticked = [word for word in visitor.ticked[1] if word in every]
    return gr.update(choices=every, value=ticked, visible=bool(every))
