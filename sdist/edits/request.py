"""One image to make: what was asked for, what was read, what came out."""

import json
import logging
import os
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ..errors import UserError
from ..errors.arguments import check_fields, checked, native
from ..files.frames import Box
from ..files.images import FORMATS, image_bytes, mask_image, panel, png_bytes
from ..files.in_memory import PICTURES, kept_file
from ..files.paths import image_path
from ..files.storage import make_folder, storage_path, write
from ..spelling import check_text, clean, escaped
from .prompt_checks import check_prompts

log = logging.getLogger("sdist")


@dataclass(frozen=True)
class Request:
    """One image to make; `words` names what the mask follows, instead of the nouns that differ.

    Paths may be given as text, words as a list or as one word, image and mask as what `sdist.edit` takes.
    """

    image: Path
    source: str
    target: str
    seed: int = 0
    words: tuple[str, ...] = ()
    mask: Path | None = None  # grey image, white where the edit may happen
    instruction: str = ""  # what to do, for editors that read one, which need no prompts then; empty: the target prompt
    copies: Path | None = None  # folder of its files by `copy_of`, read in their place on a machine that does not have them
    plain: bool = False  # of a run card that has no "read": without colour profiles, kinds of masks, clean text

    def __post_init__(self) -> None:
        """Cleans the texts, see sdist/spelling.py.

        Raises UserError for a value of a wrong type, for what is no text, and for prompts that ask for nothing.
        """
        self._convert()
        check_fields(self)
        if not self.plain:
            self._clean()
            for path in (self.image, self.mask):
                _check_path(path)
        if not self.instruction.strip():
            check_prompts(self.source, self.target)

    def _convert(self) -> None:
        """Other forms of a path, of words and of a seed become those of the annotations."""
        for name in ("image", "mask", "copies"):
            given = getattr(self, name)
            if isinstance(given, (str, os.PathLike)):
                object.__setattr__(self, name, image_path(given))
            elif isinstance(given, PICTURES) and name != "copies":
                object.__setattr__(self, name, kept_file(given, is_mask=name == "mask"))
        if isinstance(self.words, (str, list)):
            object.__setattr__(self, "words", (self.words,) if isinstance(self.words, str) else tuple(self.words))
        object.__setattr__(self, "seed", native(self.seed))

    def _clean(self) -> None:
        for name in ("source", "target", "instruction"):
            check_text(f"{name} prompt" if name != "instruction" else name, getattr(self, name))
            object.__setattr__(self, name, clean(getattr(self, name)))
        for word in self.words:
            check_text("word of --words", word)
        object.__setattr__(self, "words", tuple(map(clean, self.words)))

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that it is made of."""
        return (self.image,) if self.mask is None else (self.image, self.mask)

    @property
    def file(self) -> Path:
        """What is read; `image` is what cards and messages name."""
        return self.image if self.copies is None else copy_of(self.copies, self.image)

    @property
    def mask_file(self) -> Path | None:
        """The same of the mask."""
        return self.mask if self.mask is None or self.copies is None else copy_of(self.copies, self.mask)


def copy_of(folder: Path, path: Path) -> Path:
    """Where the copy of a file lies in a folder that may hold another of its name."""
    return folder / sha256(os.fsencode(path)).hexdigest()[:16] / path.name


def _check_path(path: Path | None) -> None:
    """Raises UserError for a path that is not text, which no run card could name."""
    if path is None:
        return
    where = str(path.absolute())
    if (shown := escaped(where)) != where:
        raise UserError(f"the path {shown} is not UTF-8, so no run card can name it; rename the file or its folder")


@dataclass(frozen=True)
class Prepared:
    """A request with its image read and its words found."""

    request: Request
    image: Image.Image
    mask: Image.Image | None
    words: tuple[str, ...]
    tokens: tuple[int, ...]
    notes: dict[str, list[str]] = field(default_factory=dict)  # what was done to "image" and "mask" when they were read
    source_tokens: tuple[int, ...] = ()  # of the source prompt's words, for editors that localize those too
    box: Box | None = None  # the part of the image as it was given that is edited; None: all of it

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
    is_whole: bool = True  # False: it was stopped before its last step
    composition: dict[str, Any] = field(default_factory=dict)  # how it was put back into its source, if it was
    card: dict[str, Any] = field(default_factory=dict)  # the run card, see sdist/edits/run_card.py
    method: str = ""  # its name or yaml, or what its editor is called
    model: str = ""

    def __repr__(self) -> str:
        """In one line."""
        request, (width, height) = self.prepared.request, self.image.size
        made = " on ".join(filter(None, (self.method, self.model))) or "edit"
        return f"<Result of {made}, seed {request.seed}: {request.source!r} -> {request.target!r}, {width} x {height}>"

    @property
    def panel(self) -> Image.Image:
        """Source, mask if there is one, and edit, side by side, at the size at which they were edited."""
        size = self.prepared.image.size
        mask = [] if self.mask is None else [mask_image(self.mask, size)]
        return panel([self.prepared.image, *mask, self._shown_at(size)])

    def _shown_at(self, size: tuple[int, int]) -> Image.Image:
        """What was edited of the image, at that size."""
        box = self.composition.get("box")
        return self.image if box is None else self.image.resize(size, Image.Resampling.LANCZOS, box=box)

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return png_bytes(self.panel)

    @checked()
    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the image in the format that the suffix says, atomically; the folder is made if needed.

        .png has the run card inside and can be replayed; of .jpg, .jpeg and .webp it is NAME.json beside the image. Raises
        UserError for another suffix, and for a place that cannot be written.
        """
        file = storage_path(path) if isinstance(path, str) else Path(path)
        card = json.dumps(self.card, indent=1, ensure_ascii=False)
        kind = FORMATS.get(file.suffix.lower())
        if kind is None:
            raise UserError(f"{path} cannot be written: a result is saved as {', '.join(FORMATS)}")
        try:
            make_folder(file.parent)
            if kind == "PNG":
                write(file, png_bytes(self.image, card))
            else:
                write(_card_beside(file), card.encode())
                write(file, image_bytes(self.image, kind))
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or error}") from None


def _card_beside(file: Path) -> Path:
    """The card's file of an image that cannot hold it. Raises UserError if there is another file of that name."""
    card = file.with_suffix(".json")
    if card.is_file() and '"sdist"' not in card.read_text(encoding="utf-8", errors="replace")[:100]:
        raise UserError(f"{file} needs {card.name} beside it for the run card, and that is another file; give another name")
    log.warning("%s holds no run card and cannot be replayed: the card is %s beside it (PNG holds it)", file.name, card.name)
    return card
