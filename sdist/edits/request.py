"""One image to make: what was asked for, what was read, what came out."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ..errors import UserError
from ..files.images import png_bytes
from ..files.storage import write_atomic
from ..spelling import check_text, clean
from .asked import check_prompts


@dataclass(frozen=True)
class Request:
    """One image to make; `words` names what the mask follows, instead of the nouns that differ."""

    image: Path
    source: str
    target: str
    seed: int = 0
    words: tuple[str, ...] = ()
    mask: Path | None = None  # grey image, white where the edit may happen
    instruction: str = ""  # what to do, for editors that read one, which need no prompts then; empty: the target prompt
    copy: Path | None = None  # of the image, read in its place on a machine that does not have it
    plain: bool = False  # of a run card that has no "read": without colour profiles, kinds of masks, clean text

    def __post_init__(self) -> None:
        """Cleans the texts, see sdist/spelling.py. Raises UserError for what is no text, and for prompts that ask for nothing."""
        if not self.plain:
            self._clean()
            for path in (self.image, self.mask):
                _check_path(path)
        if not self.instruction.strip():
            check_prompts(self.source, self.target)

    def _clean(self) -> None:
        for name in ("source", "target", "instruction"):
            check_text(f"{name} prompt" if name != "instruction" else name, getattr(self, name))
            object.__setattr__(self, name, clean(getattr(self, name)))
        for word in self.words:
            check_text("word of --words", word)
        object.__setattr__(self, "words", tuple(map(clean, self.words)))

    @property
    def file(self) -> Path:
        """What is read; `image` is what cards and messages name."""
        return self.copy or self.image


def _check_path(path: Path | None) -> None:
    """Raises UserError for a path that is not text, which no run card could name."""
    if path is None:
        return
    where = str(path.absolute())
    try:
        where.encode()
    except UnicodeEncodeError:
        shown = where.encode(errors="backslashreplace").decode()
        raise UserError(f"the path {shown} is not UTF-8, so no run card can name it; rename the file or its folder") from None


@dataclass(frozen=True)
class Prepared:
    """A request with its image read and its words found."""

    request: Request
    image: Image.Image
    mask: Image.Image | None
    words: tuple[str, ...]
    tokens: tuple[int, ...]
    notes: dict[str, list[str]] = field(default_factory=dict)  # what was done to "image" and "mask" when they were read

    @cached_property
    def key(self) -> str:
        """Identifies the image in draws: the same pixels and seed give the same noise, whatever the prompts."""
        return sha256(self.image.tobytes() + repr(self.image.size).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Result:
    """An edited image and what is known about how it came about."""

    prepared: Prepared
    image: Image.Image
    mask: Tensor | None  # the last mask, (1, h, w) in 0..1
    attempts: tuple[int, ...]  # draws for each step
    parallel: int  # draws that the network saw at once, at most; rounding depends on it
    timings: dict[str, float]  # seconds, its share where it was not alone
    card: dict[str, Any] = field(default_factory=dict)  # the run card, see sdist/edits/run_card.py

    def save(self, path: str | Path) -> None:
        """Writes the image as a PNG with the run card inside, atomically."""
        write_atomic(Path(path), png_bytes(self.image, json.dumps(self.card, indent=1, ensure_ascii=False)))
