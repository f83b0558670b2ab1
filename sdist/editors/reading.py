"""The image of a request and its mask, read and brought to the size of the edit: all of them, or a square around the mask."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..config.settings import Settings
from ..edits.request import Request
from ..files.frames import Box, Pixels, shown_box, square_around
from ..files.images import LoadedImage, fit, fit_note, fitted_size, read_image
from ..files.in_memory import called
from ..files.masks import coverage, read_mask
from ..files.opening import image_size

log = logging.getLogger("sdist")

FAR = 4  # times as many pixels as an edit has, at which it is said


class ReadImages(NamedTuple):
    """What is edited: the image and its mask at the size of the edit, and which part of the image as it was given that is."""

    image: LoadedImage
    mask: LoadedImage | None
    box: Box

    @property
    def notes(self) -> dict[str, list[str]]:
        """What was done to each."""
        both = {"image": self.image, "mask": self.mask}
        return {name: [*read.notes, *read.faults] for name, read in both.items() if read is not None}


@dataclass(frozen=True)
class Fitting:
    """How images come to the size of their edit."""

    settings: Settings
    native: int  # side in pixels that suits the model
    multiple: int  # of which the sides must be

    def size(self, request: Request) -> tuple[int, int]:
        """Width and height of the edit. Raises UserError for what the model cannot take, and for an empty mask to crop around."""
        left, top, right, bottom = self._cut(request, image_size(request.file))
        return fitted_size((right - left, bottom - top), self.settings.size, self.native, self.multiple)

    def read(self, request: Request) -> ReadImages:
        """Reads the files of a request. Raises UserError for one that is no image."""
        whole = read_image(request.file, request.plain)
        cut = self._cut(request, whole.image.size)
        image = self._fitted(request.image, _cut_out(whole, cut), self.settings.size, is_result=not self.settings.at_source)
        part = shown_box((cut[2] - cut[0], cut[3] - cut[1]), image.image.size, self.settings.size)
        box = (cut[0] + part[0], cut[1] + part[1], cut[0] + part[2], cut[1] + part[3])
        file = request.mask_file
        mask = None if file is None else self._mask(file, request.plain, whole.image.size, cut, image.image.size)
        return ReadImages(image, mask, box)

    def _mask(self, path: Path, plain: bool, whole: tuple[int, int], cut: Pixels, size: tuple[int, int]) -> LoadedImage:
        """What a mask shows of the part of the image that is cut out."""
        mask = read_mask(path, plain)
        if cut != (0, 0, *whole):
            mask = _cut_out(replace(mask, image=mask.image.resize(whole)), cut)
        fitted = self._fitted(path, mask, f"{size[0]}x{size[1]}")
        _report_coverage(path.name, fitted.image)
        return fitted

    def _cut(self, request: Request, stored: tuple[int, int]) -> Pixels:
        """The part of an image of (width, height) that is edited."""
        if self.settings.crop == "none" or request.mask_file is None:
            return 0, 0, *stored
        mask = read_mask(request.mask_file, request.plain).image
        return square_around(mask, stored, self.native, request.mask_file.name)

    def _fitted(self, path: Path, read: LoadedImage, size: str, is_result: bool = False) -> LoadedImage:
        """At the size of the edit; the log says once what was done to it."""
        image = fit(read.image, size, self.native, self.multiple)
        notes = [*read.notes, *fit_note(read.image.size, image.size)]
        if is_result and read.image.width * read.image.height >= FAR * image.width * image.height:
            notes.append("that is far below, and the result has that size")
        fitted = replace(read, image=image, notes=notes)
        fitted.report(path.name)
        return fitted


def _cut_out(read: LoadedImage, cut: Pixels) -> LoadedImage:
    """A part of an image, with a note that says so; the image as it is where that is all of it."""
    if cut == (0, 0, *read.image.size):
        return read
    left, top, right, bottom = cut
    note = f"{right - left} x {bottom - top} pixels around the mask are edited, from ({left}, {top})"
    return replace(read, image=read.image.crop(cut), notes=[*read.notes, note])


def _report_coverage(name: str, mask: Image.Image) -> None:
    """Says what part of the image a mask lets change; one that lets nothing change is warned of."""
    if not np.asarray(mask).any():
        text = "%s is empty: nothing in the image may change; white is where the edit may happen"
        log.warning(text, called(name, "mask"))
    else:
        log.info("%s: %s", called(name, "mask"), coverage(mask))
