"""What an image leaves in its folder: itself with its run card, a panel, and the card as json; or why it could not be made."""

import json
import os
import re
from collections.abc import Container, Iterable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import UserError
from ..files.images import CARD_KEY, png_bytes
from ..files.png_chunks import END, SIGNATURE
from ..files.storage import make_folder, names, read, read_ends, remove, try_writing, write
from .request import Request, Result

ERRORS = "errors"  # folder of the images that failed
PARTIAL = re.compile(r"_step\d+$")  # at the end of the name of an image that was stopped after so many steps
PARTIAL_FILE = re.compile(r"(?P<stopped>(?P<name>.+)_step\d+)(\.png|_panel\.png|\.json)", re.DOTALL)
ENDINGS = ("_panel.png", ".png", ".json")  # of the files of one image
HEAD = 65536  # bytes of a PNG that hold its card, which is zipped and stands before the pixels


def writable_folder(path: Path) -> Path:
    """The folder, made if needed. Raises UserError if nothing can be written there."""
    try:
        try_writing(path)
    except FileExistsError:
        what = "a link that leads to no folder" if path.is_symlink() else "a file, not a folder"
        raise UserError(f"output folder {path} cannot be written: it is {what}") from None
    except OSError as error:
        raise UserError(f"output folder {path} cannot be written: {error.strerror or error}") from None
    return path


def check_name(folder: Path, name: str) -> None:
    """Raises UserError for a name whose longest file, which is hidden while it is written, is none that the folder can have."""
    longest = len(f".{name}_panel.png.00000000.part".encode(errors="surrogateescape"))
    try:
        limit = os.pathconf(folder, "PC_NAME_MAX") if isinstance(folder, Path) else 255
    except (OSError, ValueError, AttributeError):  # it is not there yet; Windows
        limit = 255
    if longest > limit:
        raise UserError(f"the name {name[:60]}... is too long for files in {folder}: {longest - limit} bytes less would do")


def output_files(folder: Path, name: str) -> dict[str, Path]:
    """The files of one image, the image itself last written, so that it is there only if all are."""
    return {
        "card": folder / f"{name}.json",
        "panel": folder / f"{name}_panel.png",
        "image": folder / f"{name}.png",
    }


def check_inputs_stay(folder: Path, names: Iterable[str], inputs: Iterable[Path]) -> None:
    """Raises UserError if a file of results of these names is one of the inputs, by whatever path or link."""
    kept = {place: path for path in inputs if (place := _place(path)) is not None}
    for file in (file for name in names for file in output_files(folder, name).values()) if isinstance(folder, Path) else ():
        if (place := _place(file)) in kept:
            raise UserError(f"the result {file} would replace the input {kept[place]}; --output names another place")


def _place(path: Path) -> tuple[int, int] | None:
    """On the disk; None if nothing is there."""
    with suppress(OSError, ValueError):  # a path with a zero byte
        return (found := path.stat()).st_dev, found.st_ino
    return None


def result_names(listed: Iterable[str]) -> list[str]:
    """The names of finished images among what is listed of a folder."""
    names = (name.removesuffix(".png") for name in sorted(listed) if name.endswith(".png") and not name.startswith("."))
    return [name for name in names if not name.endswith("_panel") and not PARTIAL.search(name)]


def taken_names(listed: Iterable[str]) -> set[str]:
    """The names, in lower case, whose files would be among those listed, whoever made them."""
    folded = [name.casefold() for name in listed]
    return {name.removesuffix(ending) for name in folded for ending in ENDINGS if name.endswith(ending)}


def stopped_names(listed: Iterable[str]) -> dict[str, set[str]]:
    """The names among those listed that images stopped before their end have, by the names that they would have had."""
    names: dict[str, set[str]] = {}
    for file in listed:
        if found := PARTIAL_FILE.fullmatch(file):
            names.setdefault(found["name"], set()).add(found["stopped"])
    return names


def write_result(files: dict[str, Path], result: Result, card: dict[str, Any]) -> None:
    """Writes card, panel (source, mask if there is one, edit) and image, each atomically, in this order.

    If one cannot be written and there is no earlier image, nothing is left.
    """
    text = json.dumps(card, indent=1, ensure_ascii=False)
    content = {"card": text.encode(), "panel": png_bytes(result.panel), "image": png_bytes(result.image, text)}
    written = list[Path]()
    try:
        for kind, data in content.items():
            write(files[kind], data)
            written.append(files[kind])
    except OSError:
        with suppress(OSError):
            for file in written if not files["image"].exists() else ():
                remove(file)
        raise


def _card_inside(head: bytes) -> str | None:
    """The run card in the first bytes of an image; None if there is none."""
    try:
        with Image.open(BytesIO(head)) as image:
            return image.info.get(CARD_KEY)
    except (OSError, ValueError, SyntaxError):
        return None


def has_card(path: Path, card: str) -> bool:
    return _card_inside(read(path, HEAD)) == card


def is_whole(files: dict[str, Path], card: str) -> bool:
    """Whether the image reaches its end and is no older one, whose replacement was killed after it had written this card.

    It is not decoded; one that other programs have taken the card out of is whole, and so is one without its panel.
    """
    head, end = read_ends(files["image"], HEAD, len(END))
    start = head[: len(SIGNATURE)]
    is_cut = not any(start) or (SIGNATURE.startswith(start) and end not in (b"", END))
    return not is_cut and _card_inside(head) in (None, card)


def error_file(folder: Path, name: str) -> Path:
    return folder / ERRORS / f"{name}.json"


def write_error(folder: Path, name: str, error: str, request: Request) -> None:
    """Remembers why an image could not be made."""
    path = error_file(folder, name)
    make_folder(path.parent)
    entry = {
        "error": error,
        "image": str(request.image),
        "source": request.source,
        "target": request.target,
        "seed": request.seed,
    }
    write(path, json.dumps(entry, indent=1, ensure_ascii=False).encode())


def failed_before(folder: Path) -> set[str]:
    """Names of the images that could not be made."""
    return {name.removesuffix(".json") for name in names(folder / ERRORS) if name.endswith(".json")}


def forget_error(folder: Path, name: str) -> None:
    remove(error_file(folder, name))


def remove_parts(folder: Path, pictures: Container[str]) -> None:
    """Removes what killed processes left of these images; no living one may be at work on them."""
    for place in (folder, folder / ERRORS):
        for name in names(place):
            if name.startswith(".") and name.endswith(".part") and name[1:].partition(".")[0].removesuffix("_panel") in pictures:
                remove(place / name)
