"""Finds the edited image of each pair by its key."""

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ..datasets.base import Pair
from ..errors import UserError
from ..files.helpers import is_helper
from ..files.opening import image_size
from ..metrics.background import REMEDY

log = logging.getLogger("sdist")

SHAPE = 0.05  # by which the ratio of a result's sides may differ from the wanted image's without a word
LOGS = "logs"  # folder of `sdist run`, whose images are no results
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def find_results(folder: Path, pairs: Iterable[Pair], seed: int = 0) -> dict[str, Path | None]:
    """The image KEY or KEY_seedN of each pair, anywhere in the folder; None where there is none.

    Raises UserError if two images answer to one key, if an image answers to none (panels aside), or if there is no image at all.
    """
    if not folder.is_dir():
        raise UserError(f"results folder {folder} {'is a file' if folder.exists() else 'does not exist'}")
    files: dict[str, Path] = {}
    for path in (p for p in sorted(folder.rglob("*")) if _is_result(p.relative_to(folder))):
        if path.stem in files:
            raise UserError(f"{files[path.stem]} and {path} are results of the same name")
        files[path.stem] = path
    keys = [pair.key for pair in pairs]
    chosen = {key: files.get(f"{key}_seed{seed}", files.get(key)) for key in keys}
    if not any(chosen.values()):
        raise UserError(f"{folder} has none of the {len(keys)} results, such as {keys[0]}_seed{seed}.png or {keys[0]}.png")
    extra = [path for name, path in files.items() if name.rpartition("_seed")[0] not in chosen and name not in chosen]
    if extra:
        raise UserError(f"{len(extra)} pictures in {folder} belong to no pair of the dataset, the first is {extra[0]}")
    return chosen


def check_sizes(pairs: Iterable[Pair], results: Mapping[str, Path | None]) -> None:
    """Raises UserError for results of pairs with a mask that have another size than their source: see `check_one_size`.

    The log warns of results that the published code stretches to the wanted image. Asked of the official profile, before anything
    is loaded. What cannot be read is left to what reads it.
    """
    unlike, stretched = list[str](), list[str]()
    for pair in pairs:
        with suppress(UserError):
            size, other = _two_sizes(results[pair.key], pair.image if pair.mask is not None else pair.truth)
            said = f"{pair.key} has {size[0]} x {size[1]}, {'its source' if pair.mask else 'the wanted'} {other[0]} x {other[1]}"
            if pair.mask is not None and size != other:
                unlike.append(said)
            if pair.mask is None and abs(size[0] * other[1] / (size[1] * other[0]) - 1) > SHAPE:
                stretched.append(said)
    if stretched:
        log.warning("%d results are stretched to the shape of the wanted image, the first: %s", len(stretched), stretched[0])
    if unlike:
        number = f"{len(unlike)} results have another size than their source, which the published code misjudges"
        raise UserError(f"{number}: {unlike[0]}; {REMEDY}")


def _two_sizes(result: Path | None, other: Path | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of a result and what it is compared with; (1, 1) of both where one of them is not given."""
    if result is None or other is None:
        return (1, 1), (1, 1)
    return image_size(result), image_size(other)


def _is_result(path: Path) -> bool:
    is_picture = path.suffix.lower() in ENDINGS and not path.stem.endswith("_panel")
    return is_picture and LOGS not in path.parts and not is_helper(path)
