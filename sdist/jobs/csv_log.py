"""--log csv: what was measured of each image and how it looked, in a folder that is named as its result is."""

import csv
import io
import logging
from pathlib import Path

from ..distillation.callbacks import Observer
from ..distillation.distiller import Round, ScoreDistiller, last_mask
from ..errors import NotFiniteError
from ..files.images import mask_image, panel, png_bytes, to_images
from ..files.storage import remove, write_atomic
from ..models.base import Backbone
from ..models.memory import AllocationError

log = logging.getLogger("sdist")

UNWRITTEN = 50  # draws of an image that a kill can cost

Values = dict[str, str | int | float]


class CsvLog(Observer):
    """FOLDER/NAME/metrics.csv, a row per draw, and edit_STEP.png, every so many steps; a log of an earlier result is replaced."""

    def __init__(self, folder: Path, backbone: Backbone, every: int) -> None:
        self._folder, self._backbone, self._every = folder, backbone, every
        self._tables: dict[str, list[Values]] = {}
        self._written: dict[str, int] = {}
        self._rounds = 0

    def on_round(self, distiller: ScoreDistiller) -> None:
        for last in distiller.rounds[self._rounds :]:
            for row, image in enumerate(last.images.tolist()):
                self._add(distiller.names[image], _values(distiller, last, row))
        self._rounds = len(distiller.rounds)
        for image in distiller.accepted.tolist():
            if distiller.step[image] % self._every == 0:
                self._write_image(distiller, image)

    def _add(self, name: str, values: Values) -> None:
        table = self._tables.setdefault(name, [])
        table.append(values)
        if len(table) - self._written.get(name, 0) >= UNWRITTEN:
            self._write(name)

    def _write(self, name: str) -> None:
        """All of a table: which columns it has is known at its end."""
        table, text = self._tables[name], io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(column for values in table for column in values)), restval="")
        writer.writeheader()
        writer.writerows(table)
        write_atomic(self._own(name) / "metrics.csv", text.getvalue().encode())
        self._written[name] = len(table)

    def _own(self, name: str) -> Path:
        """The folder of an image, emptied of the images of an earlier log when it is first asked for."""
        folder = self._folder / name
        if name not in self._written:
            self._written[name] = 0
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("edit_*.png"):
                remove(old)
        return folder

    def _write_image(self, distiller: ScoreDistiller, image: int) -> None:
        name, step, mask = distiller.names[image], int(distiller.step[image]), last_mask(distiller, image)
        try:
            (edit,) = to_images(self._backbone.decode(distiller.latents[image : image + 1]))
        except (AllocationError, NotFiniteError) as error:
            log.warning("%s: no picture of step %d in the log: %s", name, step, error)
            return
        shown = panel([edit] if mask is None else [edit, mask_image(mask, edit.size)], gap=2)
        write_atomic(self._own(name) / f"edit_{step:05d}.png", png_bytes(shown))

    def close(self) -> None:
        """Writes what is not written yet."""
        for name in self._tables:
            self._write(name)


def _values(distiller: ScoreDistiller, last: Round, row: int) -> Values:
    """Of one draw; a rejected one has the step that it was tried after, and nothing of what only accepted ones have."""
    image, accepted = int(last.images[row]), bool(last.accepted[row])
    measured = {name: float(value[row]) for name, value in last.values.items() if not value[row].isnan()}
    return {
        "image": distiller.names[image],
        "seed": distiller.identities[image][0],
        "step": int(last.step[row]) + accepted,
        "attempts": int(last.attempt[row]) + 1,
        "accepted": int(accepted),
        "timestep": float(last.t[row]),
        **measured,
    }
