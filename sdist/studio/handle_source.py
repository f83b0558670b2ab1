"""Handlers for what a visitor gives: a picture, a scene, words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from ..errors import UserError
from ..files.images import load_image
from .form import reads, words_of
from .html import source_stage
from .limits import told
from .page import paintable, status
from .scenes import scenes
from .visitor import Desk

SHOWN = 1024  # pixels of the long side of a source on the page


def take(desk: Desk, given: ImageData | None) -> list[Any]:
    """A picture that was dropped."""
    with told():
        if given is None or not given.path:
            raise UserError("no file came with this")
        desk.source = desk.take(Path(given.path), given.orig_name or "picture.png")
    return placed(desk)


def drop(desk: Desk) -> None:
    desk.source = None


def placed(desk: Desk, mask: Path | None = None) -> list[Any]:
    """The desk's source as picture, stage, mask editor (with a mask that was painted before) and status show it."""
    assert desk.source is not None
    image = load_image(desk.source)
    said = status(f"{desk.source.name}, {image.width} x {image.height} pixels")
    image.thumbnail((SHOWN, SHOWN))
    return [image, source_stage(image), paintable(image, mask and load_image(mask)), said]


def choose_scene(desk: Desk, event: gr.SelectData) -> list[Any]:
    """A drawn scene with the prompts of an edit."""
    pair = scenes()[event.index]
    with told():
        desk.source = desk.take_image(pair.source_image, f"scene_{event.index}")
    return [*placed(desk), pair.source, pair.target, offered(pair.source, pair.target)]


def read_words(source: str, target: str, methods: Sequence[str]) -> list[Any]:
    """The words of the target, while it is typed, and the mask to paint, each where a method reads it."""
    offer = offered(source, target) if reads(methods, "words") else gr.update(visible=False)
    return [offer, gr.update(visible=reads(methods, "mask"))]


def tick(desk: Desk, target: str, words: list[str]) -> None:
    """Remembers a choice with its target, since the words on the page lag behind what is typed."""
    desk.ticked = (target, words)


def offered(source: str, target: str, chosen: Sequence[str] | None = None) -> Any:
    """The words to choose from; without a choice those are ticked that an edit follows by itself."""
    with told():
        every, automatic = words_of(source, target)
    return gr.update(choices=every, value=automatic if chosen is None else chosen, visible=bool(every))
