"""Where a file is that somebody puts on a model: a path, a folder that holds it, or a hub id."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..errors import UserError
from ..files.digest import kept_digest
from .catalogue import SAFE, hub_problem
from .hub_progress import hub_says
from .options import LoadOptions
from .weights import MissingError, mapped

VAES = tuple(f"{folder}diffusion_pytorch_model{SAFE}" for folder in ("", "vae/"))  # of a folder with an autoencoder


class AddedFile(NamedTuple):
    """A file, and what was written behind its name: FILE:NOTE."""

    place: str  # as it was given
    note: str

    @classmethod
    def read(cls, text: str) -> "AddedFile":
        """FILE:NOTE or FILE; of a file whose own name has a colon, all of it."""
        place, _, note = text.rpartition(":")
        is_path = not Path(place).exists() and ("/" in note or "\\" in note)
        is_whole = not place or is_path or Path(text).exists()
        return cls(text, "") if is_whole else cls(place, note)

    @property
    def absolute(self) -> str:
        """The same from everywhere."""
        place = str(Path(self.place).resolve()) if Path(self.place).exists() else self.place
        return f"{place}:{self.note}" if self.note else place


def find_file(place: str, what: str) -> Path:
    """The safetensors file that a path, a folder or a hub id means. Raises UserError if there is none, or several."""
    path = Path(place)
    if path.is_file():
        if path.suffix != SAFE:
            raise UserError(f"{what} {place} is no {SAFE} file; others can run code and are not read")
        return path
    if not path.is_dir() and (place.count("/") != 1 or place.startswith((".", "/", "~")) or place.endswith(SAFE)):
        raise UserError(f"{what} {place} does not exist: give a {SAFE} file, a folder with one, or a hub id (owner/name)")
    folder = path if path.is_dir() else _fetched(place, what)
    found = sorted(folder.glob(f"*{SAFE}"))
    if len(found) != 1:
        have = ", ".join(file.name for file in found) or "none"
        raise UserError(f"{what} {place} must have one {SAFE} file, it has {have}: give the path of one")
    return found[0]


def load_added(text: str, what: str) -> tuple[Path, dict[str, Tensor]]:
    """The file that FILE:NOTE means, and its tensors. Raises UserError if there is none, or if it is damaged."""
    file = find_file(AddedFile.read(text).place, what)
    try:
        return file, mapped(file)
    except MissingError as error:
        raise UserError(f"{what} {file}: {error}") from None


def _fetched(hub_id: str, what: str) -> Path:
    """The folder of a hub id's own safetensors files and configurations, from the cache or the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    patterns = [f"*{SAFE}", "config.json"]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, ignore_patterns=["*/*"], local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        if problem := hub_problem(hub_id):
            raise UserError(f"{what} {hub_id}: {problem}") from None
    with hub_says(f"{what} {hub_id}"):
        return Path(snapshot_download(hub_id, allow_patterns=patterns, ignore_patterns=["*/*"]))


def digests(options: LoadOptions) -> dict[str, str]:
    """What was put on a model, each file with the beginning of its sha256."""
    found = {}
    for what, text in options.added:
        place, note = AddedFile.read(text)
        file = next((Path(place) / name for name in VAES if (Path(place) / name).is_file()), None) if what == "vae" else None
        file = file or find_file(place, what)
        found[f"{what} {file.name}{f':{note}' if note else ''}"] = kept_digest(file)[:16]
    return found
