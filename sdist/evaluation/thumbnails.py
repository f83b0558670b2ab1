"""Small copies of pictures, for a page that holds them all."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

from PIL import Image

from ..errors import UserError
from ..files.images import load_image

SIDE = 256  # pixels of the long side at most
QUALITY = 75

LOST = -1


class Thumbnails:
    """Collects WebP copies, one per file; `pictures` has width, height and base64 of each."""

    def __init__(self) -> None:
        self.pictures: list[tuple[int, int, str]] = []
        self.lost: list[str] = []
        self._places: dict[str, int] = {}

    def place(self, path: str | None) -> int | None:
        """Where in `pictures` the copy is; None for no path, LOST for a file that is not there or no picture any more."""
        if path is None:
            return None
        if path not in self._places:
            self._places[path] = self._add(path)
        return self._places[path]

    def _add(self, path: str) -> int:
        try:
            image = load_image(Path(path))
        except UserError:
            self.lost.append(path)
            return LOST
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2)
        buffer = BytesIO()
        image.save(buffer, "WEBP", quality=QUALITY, method=2)
        self.pictures.append((*image.size, b64encode(buffer.getvalue()).decode()))
        return len(self.pictures) - 1
