"""Edits for programs: the one public function of the studio's HTTP API, in the same line as those of the page."""

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from functools import wraps
from inspect import signature
from pathlib import Path
from time import sleep
from typing import Any

import gradio as gr

from ..errors import UserError, unknown
from ..errors.arguments import check
from ..files.images import png_bytes
from ..files.masks import check_allows, read_mask
from .edits import Run, Work
from .form import EditOrder, runs_of
from .limits import Limits, Offer, reason
from .visitor import Visitor

WAIT = 0.05  # seconds between two looks whether an edit has ended


def edit_function(offer: Offer) -> Callable[..., str]:
    """The function, for what this studio offers."""

    def edit(
        image: str, source: str = "", target: str = "", method: str = offer.methods[0], model: str = offer.models[0],
        seed: int = 0, steps: int = 0, size: str = "native", words: str | list[str] | None = None, mask: str = "",
        keep_background: bool = False, output_size: str = "edit", crop: str = "none", settings: str = "",
    ) -> str:  # fmt: skip
        """An edited PNG with its run card inside. Images are files in base64; steps 0 and words null leave that to the method.

        A word alone is text, several are a list.
        """
        visitor = Visitor(offer)
        try:
            check_offered(offer, method, model)
            given, where = (_file(visitor, text, offer.limits, what) for text, what in ((image, "image"), (mask, "mask")))
            if where is not None:
                check_allows(read_mask(where).image, where.name)
            order = EditOrder(
                image=given, source=source, target=target, methods=[method], model=model, seed=seed, steps=steps,
                size=size, chosen=[words] if isinstance(words, str) else words, mask=where, overrides=settings,
                keep_background=keep_background, output_size=output_size, crop=crop,
            )  # fmt: skip
            return _made(offer, *runs_of(order, offer.limits))
        finally:
            visitor.close()

    return _refusing(edit)


def _refusing(function: Callable[..., str]) -> Callable[..., str]:
    """The function for values from JSON, of any type: what it does not take is refused in one line, by its annotations."""
    taken = signature(function)

    @wraps(function)
    def call(*values: Any, **named: Any) -> str:
        try:
            for name, value in taken.bind(*values, **named).arguments.items():
                check(name, value, taken.parameters[name].annotation)
            return function(*values, **named)
        except Exception as error:
            raise gr.Error(reason(error), print_exception=False) from None

    return call


def check_offered(offer: Offer, method: str, model: str) -> None:
    """Raises UserError for a method or a model that the page has not either, such as a file of this machine."""
    for what, name, names in (("method", method, offer.methods), ("model", model, offer.models)):
        if name not in names:
            raise unknown(what, str(name), names, "this studio")


def _file(visitor: Visitor, text: str, limits: Limits, what: str) -> Path | None:
    """The picture in base64, as a file; None for none."""
    if not text:
        return None
    if len(text) > 4 * limits.upload // 3:
        raise UserError(f"the {what} has more than {limits.upload} bytes")
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UserError(f"the {what} is no base64 of a file") from None
    path = visitor.folder / what
    path.write_bytes(data)
    return visitor.take(path, what)


def _made(offer: Offer, run: Run) -> str:
    """The edit, when its turn has come and it is made."""
    work = Work([run], offer.limits, lambda begun: None)
    offer.bench.ask(work)
    while not work.ended:
        sleep(WAIT)
    if run.result is None:
        raise UserError(work.problem)
    return b64encode(png_bytes(run.result.image, json.dumps(run.card, indent=1, ensure_ascii=False))).decode()
