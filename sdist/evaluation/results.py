"""Finds the edited image of each pair by its key."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ..datasets.base import Pair
from ..errors import UserError
from ..files.helpers import is_helper
from ..files.opening import image_size
from ..metrics.background import REMEDY

LOGS = "logs"  # folder of `sdist run`, whose images are no results
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def find_results(folder: Path, pairs: Iterable[Pair], seed: int = 0) -> dict[str, Path | None]:
    """The image KEY or KEY_seedN of each pair, anywhere in the folder; None where there is none.

    Raises UserError if two images answer to one key, if an image answers to none (panels aside), or if there is no image at all.
    """
    if not folder.is_dir():
        raise UserError(f"results folder {folder} does not exist")
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

    Asked of the official profile, before anything is loaded. What cannot be read is left to what reads it.
    """
    unlike = []
    for pair in pairs:
        result = results[pair.key]
        if pair.mask is None or result is None:
            continue
        with suppress(UserError):
            size, source = image_size(result), image_size(pair.image)
            if size != source:
                unlike.append(f"{pair.key} has {size[0]} x {size[1]}, its source {source[0]} x {source[1]}")
    if unlike:
        raise UserError(f"{len(unlike)} results have another size than their source, which the published code misjudges: "
                        f"{unlike[0]}; {REMEDY}")  # fmt: skip


def _is_result(path: Path) -> bool:
    is_picture = path.suffix.lower() in ENDINGS and not path.stem.endswith("_panel")
    return is_picture and LOGS not in path.parts and not is_helper(path)
