"""A run card from the browser, as text or inside a PNG, back to what stood on the page."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.build import resolve
from ..config.settings import Settings
from ..edits.run_card import card_text, plain_settings
from ..edits.stored_results import SAME
from ..errors import UserError
from .form import COMPOSED, as_shipped
from .limits import check_literal, check_prompts

LARGEST = 200_000  # characters of a card
COMMON = (  # what is no part of a method; a card with another storage, or way to read prompts, stands for itself
    *SAME, "model", "precision", "size", "seed", "steps", *COMPOSED, "vae", "lora", "embedding",
)  # fmt: skip


@dataclass(frozen=True)
class RestoredEdit:
    """What a card says; `digests` are those of its source and its mask picture."""

    method: str | None  # None: no method of this installation has these settings
    settings: dict[str, Any]
    model: str
    size: str
    seed: int
    steps: int
    source: str
    target: str
    words: list[str]
    image: str
    digests: tuple[str, str | None]
    composed: dict[str, Any]  # how it came back into its source
    added: dict[str, list[str]]  # files that were put on the model: vae, lora and embedding


def restored(text: str, methods: list[str]) -> RestoredEdit:
    """Reads a card. Raises UserError if it is none, or damaged."""
    check_literal(text)
    if len(text) > LARGEST:
        raise UserError(f"this is {len(text)} characters long, a run card has at most {LARGEST}")
    try:
        data = json.loads(text)
        request, settings = data["job"], resolve(data["settings"], "the run card")
        source, target, image = (str(request[key]) for key in ("source", "target", "image"))
        target = str(request.get("instruction") or target)  # one prompt stands for either
        check_prompts(source, target)
        digests = (str(request["sha256"]), request["mask_sha256"] and str(request["mask_sha256"]))
        chosen, seed = [*dict.fromkeys(map(str, data["words"]))], int(request["seed"])
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"this is no run card, or it is damaged ({type(error).__name__})") from None
    if settings.variant or settings.model_config:
        raise UserError("this run card has a file or variant of its model that this studio does not load; sdist replay does")
    if not settings.editor.watchable:
        raise UserError("this run card is of an editor whose steps cannot be watched; sdist replay makes it again")
    plain, steps = plain_settings(settings), settings.editor.steps if settings.editor.stepwise else 0  # 0: the method's
    return RestoredEdit(
        method=_method(settings, methods), settings={k: v for k, v in plain.items() if k not in SAME},
        model=settings.model, size=settings.size, seed=seed, steps=steps, source=source, target=target,
        words=chosen, image=Path(image).name, digests=digests, composed={name: plain[name] for name in COMPOSED},
        added={"vae": list(filter(None, [plain["vae"]])), "lora": plain["lora"], "embedding": plain["embedding"]},
    )  # fmt: skip


def text_of(path: Path) -> str:
    """The card in a file: a PNG's, or the whole of a json."""
    with path.open("rb") as file:
        if file.read(8) == b"\x89PNG\r\n\x1a\n":
            return card_text(path)
        file.seek(0)
        return file.read(4 * LARGEST).decode("utf-8", errors="replace")


def _method(settings: Settings, methods: list[str]) -> str | None:
    wanted = _without(settings)
    return next((name for name in methods if _without(as_shipped(name, settings.model)) == wanted), None)


def _without(settings: Settings) -> dict[str, Any]:
    return {key: value for key, value in settings.plain().items() if key not in COMMON}
