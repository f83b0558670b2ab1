"""Handler for a run card that is brought back."""

from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import UserError
from .form import CARD, words_of
from .handle_source import offered, placed
from .html import empty_stage
from .limits import Offer, shown_errors
from .page import status
from .restore import Restored, restored, text_of
from .visitor import Visitor


def restore(offer: Offer, visitor: Visitor, files: list[str] | None, pasted: str) -> list[Any]:
    """Puts everything back as a card has it; the source too, if it came along or was on this page before."""
    with shown_errors():
        text, pictures = _sorted([Path(file) for file in files or ()], pasted.strip())
        card = restored(text, offer.methods)
        if card.model not in offer.models:
            raise UserError(f"the run card is of the model {card.model}, which this studio does not offer")
        for path in pictures:
            visitor.take(path, path.name)
        return _back(visitor, card, offer)


def _sorted(files: list[Path], pasted: str) -> tuple[str, list[Path]]:
    """The card's text, and the files that are pictures to work on."""
    if pasted:
        return pasted, files
    cards: dict[Path, str] = {}
    for path in files:
        try:
            cards[path] = text_of(path)
        except UserError:
            continue  # a picture without a card
    if not cards:
        raise UserError("give a PNG that sdist made, its run card as a file, or the card's text")
    first = next(iter(cards))
    return cards[first], [path for path in files if path != first]


def _back(visitor: Visitor, card: Restored, offer: Offer) -> list[Any]:
    visitor.card = card.settings if card.method is None else None
    chosen = None if card.words in ([], words_of(card.source, card.target)[1]) else card.words
    visitor.ticked = None if chosen is None else (card.target, chosen)
    visitor.source = visitor.sources.get(card.digests[0])
    missing = visitor.source is None
    said = status(f"everything is back but the picture: drop {card.image} too")
    mask = visitor.sources.get(card.digests[1] or "")
    source = [None, empty_stage(), None, said] if missing else placed(visitor, mask)
    if card.digests[1] and mask is None and not missing:
        source[-1] = status("everything is back but the painted mask, which is not of this page")
    choices = offer.methods if card.method else [*offer.methods, CARD]
    methods = gr.update(choices=choices, value=[card.method or CARD])
    words = offered(card.source, card.target, chosen)
    return [*source, card.source, card.target, words, methods, card.model, card.seed, 1, card.steps, card.size, ""]
