"""What one visitor has: pictures, runs, and what is looked at. Nothing of it is shared with another visitor."""

import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from threading import Event

from PIL import Image

from ..edits.run_card import file_digest
from ..errors import UserError
from ..files.images import png_bytes, read_image
from ..files.storage import write_atomic
from .edits import Run

KEPT = 12  # runs
FILES = 40  # pictures


@dataclass
class Visitor:
    """One visitor's state; a new one can be copied, which is how each visitor comes to one."""

    root: Path  # where the folder is made, when the first picture is given
    source: Path | None = None
    sources: dict[str, Path] = field(default_factory=dict)  # sha256 -> file
    runs: list[Run] = field(default_factory=list)
    shown: Run | None = None
    stop: Event | None = None  # of the edit that runs or waits
    busy: bool = False  # one does
    ticked: tuple[str, list[str]] | None = None  # a target, and the words of it that were chosen by hand
    card: dict | None = None  # settings of a restored run card, if no method has them

    @cached_property
    def folder(self) -> Path:
        """Holds the pictures that were given, by their content."""
        return Path(mkdtemp(prefix="visitor-", dir=self.root))

    def close(self) -> None:
        """Ends what runs and removes what was given."""
        if self.stop is not None:
            self.stop.set()
        shutil.rmtree(self.folder, ignore_errors=True)

    def take(self, path: Path, name: str) -> Path:
        """Keeps a picture that was given, after a look at whether it is one, under a harmless form of its name."""
        try:
            read_image(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), harmless(name))) from None
        digest = file_digest(path)
        if digest not in self.sources:
            if len(self.sources) >= FILES:
                raise UserError(f"there are {FILES} pictures on this page; reload it to begin anew")
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
        """Adds a run, the oldest giving way, and looks at it."""
        self.runs = [*self.runs[-(KEPT - 1) :], run]
        self.shown = run


def harmless(name: str) -> str:
    """A file name of letters, digits, dot, dash and underscore, 60 at most, with its ending."""
    path = Path(name.replace("\\", "/"))
    stem, end = (
        "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in part) for part in (path.stem, path.suffix[1:])
    )
    return f"{stem[:50] or 'picture'}.{end[:8] or 'png'}"
