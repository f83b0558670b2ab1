"""What is in an output folder already: results are found by what their run cards say, whatever they are called."""

import json
import logging
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..config.build import resolve
from ..config.recognize import method_of
from ..errors import UserError
from ..files.storage import mapped, read
from ..plugins import check_recorded
from .outputs import has_card, is_whole, output_files
from .run_card import plain_settings

log = logging.getLogger("sdist")

JOB = ("sha256", "source", "target", "seed", "words", "instruction", "mask_sha256")  # of a card: what was asked for
SAID = {  # of what differs, as messages have it
    "sha256": "image", "source": "source prompt", "target": "target prompt", "words": "words of --words", "mask_sha256": "mask",
}  # fmt: skip
SAME = ("log", "device", "compile", "checkpoint", "offload")  # settings that do not make another image
NO_CARD = (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError)  # what reading a card raises that is none
OUTSIDE = (*SAME, "seed")  # settings that are no part of a result's identity: its seed is that of the request


@dataclass(frozen=True)
class StoredResult:
    """A result that is there, with its card; not whole if cut short, or older than its card."""

    image: Path
    text: str
    card: dict[str, Any]
    is_whole: bool

    @property
    def name(self) -> str:
        return self.image.stem

    @property
    def job(self) -> dict[str, Any]:
        return self.card["job"]

    @property
    def method(self) -> str:
        """The shipped method that it was made by, as far as its settings show; else empty."""
        return method_of(self.card["settings"])

    def other_settings(self, plain: dict[str, Any], fingerprint: Callable[[], str]) -> list[str]:
        """Which of these settings, or which plugin, it was not made with; a model of the same fingerprint is the same one.

        Raises UserError for recorded settings that are unknown here, and for plugins that are not loaded.
        """
        differ = [Path(plugin).name for plugin in check_recorded(self.card.get("plugins", {}), str(self.image))]
        try:
            recorded = _recorded_settings(json.dumps(self.card["settings"]))
        except UserError as error:
            raise UserError(f"{self.image}: {error}; --overwrite replaces it") from None
        differ += [key for key, value in plain.items() if key not in OUTSIDE and value != recorded.get(key)]
        if "model" in differ and self.card["model"].get("fingerprint") == fingerprint():
            differ.remove("model")  # in another folder
        return differ

    def other_request(self, job: dict[str, Any]) -> list[str]:
        """What of this job it was not made for, in words."""
        return [SAID.get(key, key) for key in JOB if job.get(key) != self.job.get(key)]


@lru_cache(maxsize=8)
def _recorded_settings(text: str) -> dict[str, Any]:
    """The settings of a run card, with defaults for those that came later; the cards of a run have the same."""
    return plain_settings(resolve(json.loads(text), "run card"))


def content(job: dict[str, Any]) -> str:
    """What tells one request from another, of a card's "job" or of `describe`."""
    return json.dumps([job.get(key) for key in JOB])


def image_marks(job: dict[str, Any]) -> tuple[str, ...]:
    """What tells a job's source image, wherever it lies: its sha256, and the name of its file, whose content may have changed."""
    name = str(job.get("image") or "").replace("\\", "/").rpartition("/")[2]
    return tuple(filter(None, (str(job["sha256"]), name)))


def read_made(folder: Path, names: Iterable[str], there: Container[str]) -> list[StoredResult]:
    """Those of these names whose image is there, and has a card that can be read. Raises OSError as the place does."""
    files = [output_files(folder, name) for name in names]
    images = [each["image"] for each in files if each["image"].name in there and each["card"].name in there]
    return [made for made in mapped(folder, _read, images) if made is not None]


def _read(image: Path) -> StoredResult | None:
    files = output_files(image.parent, image.stem)
    try:
        text, card = _card(files["card"])
        return StoredResult(image, text, card, is_whole(files, text))
    except NO_CARD:
        return None


def _card(path: Path) -> tuple[str, dict[str, Any]]:
    """A run card as text and read. Raises one of NO_CARD for what is none."""
    text = read(path).decode()
    card = json.loads(text)
    _ = content(card["job"]), [card["job"][key] for key in JOB[:4]], [{**card[key]} for key in ("settings", "model")]
    return text, card


def in_the_way(folder: Path, name: str, there: Container[str], job: dict[str, Any]) -> Path | None:
    """A file that a new result of that name would replace; not what a kill left of this job before its image was written.

    `there`: what is in the folder, in lower case.
    """
    files = output_files(folder, name)
    found = [files[kind] for kind in ("image", "panel", "card") if files[kind].name.casefold() in there]
    with suppress(*NO_CARD):
        if files["image"] not in found and files["card"] in found and content(_card(files["card"])[1]["job"]) == content(job):
            return None
    return found[0] if found else None


def is_stopped(folder: Path, name: str, wanted: dict[str, Any]) -> bool:
    """Whether that name is one of the image of this card, stopped before its last step, by the card beside it and inside.

    The log says if it is, but was made with other settings.
    """
    files = output_files(folder, name)
    with suppress(*NO_CARD):
        text, card = _card(files["card"])
        if "stopped_at" in card and content(card["job"]) == content(wanted["job"]) and has_card(files["image"], text):
            other = [
                key for key, value in wanted["settings"].items() if key not in OUTSIDE and card["settings"].get(key) != value
            ]
            if other:
                log.info(
                    "%s stays: it was stopped at step %s, with another value of %s", files["image"], card["stopped_at"], other[0]
                )
            return not other
    return False
