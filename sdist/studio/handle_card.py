"""Handler for a run card that is brought back."""

from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files.images import load_image
from .form import CARD, words_of
from .handle_page import fields_of
from .handle_source import offered, placed
from .html import about, empty_stage, sized, status
from .restore import RestoredEdit, restored, text_of
from .visitor import Form, Visitor


def restore(visitor: Visitor, files: list[str] | None, pasted: str) -> dict[str, Any]:
    """Puts everything back as a card has it; the source too, if it came along or was on this page before."""
    text, pictures = _sorted([Path(file) for file in files or ()], pasted.strip())
    card = restored(text, visitor.offer.methods)
    if card.model not in visitor.offer.models:
        raise UserError(f"the run card is of the model {card.model}, which this studio does not offer")
    added = {kind: visitor.offer.named(kind, files) for kind, files in card.added.items()}
    for path in pictures:
        visitor.take(path, path.name)
    return _back(visitor, card, added)


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


def _back(visitor: Visitor, card: RestoredEdit, added: dict[str, list[str]]) -> dict[str, Any]:
    visitor.card = card.settings if card.method is None else None
    chosen = None if card.words in ([], words_of(card.source, card.target)[1]) else card.words
    visitor.ticked = None if chosen is None else (card.target, chosen)
    methods = [card.method or CARD]
    on_model: dict[str, Any] = {**added, "vae": "".join(added["vae"])}
    visitor.form = Form(
        card.source, card.target, methods, card.model, card.seed, 1, card.steps, card.size, **card.composed, **on_model
    )
    visitor.source, visitor.shown = visitor.sources.get(card.digests[0]), None
    mask = visitor.sources.get(card.digests[1] or "")
    if visitor.source is None:
        said = f"everything is back but the picture: drop {card.image} too"
        changes = {"picture": None, "stage": empty_stage(), "editor": None, "sized": sized(""), "status": status(said)}
    else:
        changes = placed(visitor, None if mask is None else load_image(mask).convert("L"))
        if card.digests[1] and mask is None:
            changes["status"] = status("everything is back but the painted mask, which is not of this page")
    return {**changes, **fields_of(visitor), "words": offered(visitor), "about": about(methods)}
