"""Handlers for what a visitor gives: a picture, a scene, words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from ..config.build import load_settings
from ..errors import UserError
from ..files.images import load_image
from .form import CARD, reads, words_of
from .html import source_stage
from .limits import shown_errors
from .page import paintable, status
from .scenes import scenes
from .visitor import Visitor

SHOWN = 1024  # pixels of the long side of a source on the page


def take(visitor: Visitor, upload: ImageData | None) -> list[Any]:
    """A picture that was dropped."""
    with shown_errors():
        if upload is None or not upload.path:
            raise UserError("no file came with this")
        visitor.source = visitor.take(Path(upload.path), upload.orig_name or "picture.png")
    return placed(visitor)


def drop(visitor: Visitor) -> None:
    visitor.source = None


def placed(visitor: Visitor, mask: Path | None = None) -> list[Any]:
    """The source as picture, stage, mask editor (with a mask that was painted before) and status show it."""
    assert visitor.source is not None
    image = load_image(visitor.source)
    said = status(f"{visitor.source.name}, {image.width} x {image.height} pixels")
    image.thumbnail((SHOWN, SHOWN))
    return [image, source_stage(image), paintable(image, None if mask is None else load_image(mask)), said]


def choose_scene(visitor: Visitor, event: gr.SelectData) -> list[Any]:
    """A drawn scene with the prompts of an edit."""
    pair = scenes()[event.index]
    with shown_errors():
        visitor.source = visitor.take_image(pair.source_image, f"scene_{event.index}")
    return [*placed(visitor), pair.source, pair.target, offered(pair.source, pair.target)]


def read_words(source: str, target: str, methods: Sequence[str]) -> list[Any]:
    """The words of the target, while it is typed, and the mask to paint, each where a method reads it."""
    offer = offered(source, target) if reads(methods, "words") else gr.update(visible=False)
    return [offer, gr.update(visible=reads(methods, "mask"))]


def ask(methods: Sequence[str]) -> list[Any]:
    """What the prompts are for: methods that read an instruction need no other."""
    instructed = [m != CARD and "instruction" in load_settings(m).editor.reads for m in methods]
    label = "What to do" if instructed and all(instructed) else "What should be there"
    if any(instructed) and not all(instructed):
        label += ", or what to do"
    return [gr.update(visible=not (instructed and all(instructed))), gr.update(label=label)]


def tick(visitor: Visitor, target: str, words: list[str]) -> None:
    """Remembers a choice with its target, since the words on the page lag behind what is typed."""
    visitor.ticked = (target, words)


def offered(source: str, target: str, chosen: Sequence[str] | None = None) -> Any:
    """The words to choose from; without a choice those are ticked that an edit follows by itself."""
    with shown_errors():
        every, automatic = words_of(source, target)
    ticked = automatic if chosen is None else [word for word in chosen if word in every]
    return gr.update(choices=every, value=ticked, visible=bool(every))
