"""What one visitor has: what stands on the page, pictures, runs, and what is looked at. Nothing of it is shared with another."""

import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic

from PIL import Image

from ..errors import UserError
from ..files.digest import file_digest
from ..files.images import png_bytes, read_image
from ..files.storage import write_atomic
from .edits import Run, Work
from .limits import Offer

KEPT = 40  # runs
WHOLE = 12  # of them with all frames of their timelines
FILES = 40  # pictures
MINUTE, HOUR, DAY = 60.0, 3600.0, 24 * 3600.0  # seconds


@dataclass
class Form:
    """What stands on the page; 0 leaves a value to the method."""

    source: str = ""
    target: str = ""
    methods: list[str] = field(default_factory=list)
    model: str = ""
    seed: int = 0
    seeds: int = 1
    steps: int = 0
    size: str = "native"
    overrides: str = ""
    keep_background: bool = False
    output_size: str = "edit"
    crop: str = "none"
    vae: str = ""  # by the names of Offer.added, as those that follow
    lora: list[str] = field(default_factory=list)
    embedding: list[str] = field(default_factory=list)


def form_of(
    source: str, target: str, methods: list[str] | None, model: str, seed: float | None, seeds: float | None,
    steps: float | None, size: str, overrides: str, keep_background: bool, output_size: str, crop: str,
    vae: str | None, lora: list[str] | None, embedding: list[str] | None,
) -> Form:  # fmt: skip
    """The form from the fields as the page gives them."""
    return Form(
        source or "", target or "", list(methods or []), model, int(seed or 0), 1 if seeds is None else int(seeds),
        int(steps or 0), size or "", overrides or "", keep_background, output_size, crop, vae or "", list(lora or []),
        list(embedding or []),
    )  # fmt: skip


@dataclass
class Visitor:
    """One visitor's state."""

    offer: Offer
    tab: str = ""
    form: Form = field(default_factory=Form)
    source: Path | None = None
    sources: dict[str, Path] = field(default_factory=dict)  # sha256 -> file
    mask: Image.Image | None = None  # what is painted on the page
    runs: list[Run] = field(default_factory=list)
    shown: Run | None = None
    look: tuple[int, float] | None = None  # step and strength at which it is looked at; None: as it was made
    work: Work | None = None  # of the last press
    presses: int = 0
    rests: float = 0.0  # until when no look is taken, so that the edit goes on
    ticked: tuple[str, list[str]] | None = None  # a target, and the words of it that were chosen by hand
    card: dict | None = None  # settings of a restored run card, if no method has them
    has_left: bool = False  # the page said so
    seen: float = field(default_factory=monotonic)

    def __post_init__(self) -> None:
        self.form.methods = self.form.methods or self.offer.methods[:1]
        self.form.model = self.form.model or self.offer.models[0]

    @cached_property
    def folder(self) -> Path:
        """Holds the pictures that were given, by their content."""
        return Path(mkdtemp(prefix="visitor-", dir=self.offer.root))

    @property
    def is_busy(self) -> bool:
        """An edit is made or waits."""
        return self.work is not None and not self.work.ended

    def is_here(self) -> None:
        self.seen, self.has_left = monotonic(), False

    def is_away(self) -> bool:
        """For so long that no edit is made any more: not as long where others wait, and the page was closed."""
        is_in_the_way = self.has_left and self.offer.bench.has_waiting
        return monotonic() - self.seen > (MINUTE if is_in_the_way else HOUR)

    @property
    def is_gone(self) -> bool:
        """Kept an hour after the page was closed, and a day after it fell silent, as that of a machine which sleeps does."""
        return monotonic() - self.seen > (HOUR if self.has_left else DAY)

    def close(self) -> None:
        """Ends what runs and removes what was given."""
        if self.work is not None:
            self.work.stop.set()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, runs: list[Run]) -> None:
        """Has them made when it is their turn. Raises UserError if too many edits wait."""
        work = Work(runs, self.offer.limits, self.show, self.is_away)
        self.offer.bench.ask(work)
        self.work, self.presses, self.rests = work, self.presses + 1, 0.0

    def take(self, path: Path, name: str) -> Path:
        """Keeps a picture that was given, after a look at whether it is one, under a harmless form of its name."""
        try:
            read_image(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), harmless(name))) from None
        digest = file_digest(path)
        if digest not in self.sources:
            if len(self.sources) >= FILES:
                raise UserError(f"there are {FILES} pictures on this page; go on in another tab")
            folder = self.folder / digest[:16]
            folder.mkdir()
            shutil.copyfile(path, folder / harmless(name))
            self.sources[digest] = folder / harmless(name)
        return self.sources[digest]

    def take_image(self, image: Image.Image, name: str) -> Path:
        """The same for a picture in memory, as a PNG."""
        path = self.folder / "taken.png"
        write_atomic(path, png_bytes(image))
        return self.take(path, f"{Path(name).stem}.png")

    @property
    def ended(self) -> list[Run]:
        """The runs that have a result."""
        return [run for run in self.runs if run.result is not None]

    def show(self, run: Run) -> None:
        """Adds a run and looks at it; older ones lose the frames in between, the oldest gives way."""
        self.runs = [*self.runs[-(KEPT - 1) :], run]
        for old in self.runs[:-WHOLE]:
            old.thin()
        self.shown, self.look = run, None


def harmless(name: str) -> str:
    """A file name of letters, digits, dot, dash and underscore, 60 at most, with its ending."""
    path = Path(name.replace("\\", "/"))
    stem, end = (
        "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in part) for part in (path.stem, path.suffix[1:])
    )
    return f"{stem[:50] or 'picture'}.{end[:8] or 'png'}"
