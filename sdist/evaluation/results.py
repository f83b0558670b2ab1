"""Finds the edited picture of each pair by its key."""

from collections.abc import Iterable
from pathlib import Path

from ..datasets.base import Pair
from ..errors import UserError

LOGS = "logs"  # folder of `sdist run`, whose pictures are no results
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def find_results(folder: Path, pairs: Iterable[Pair], seed: int = 0) -> dict[str, Path | None]:
    """The picture KEY or KEY_seedN of each pair, anywhere in the folder; None where there is none.

    UserError if two pictures answer to one key, if a picture answers to none (panels aside), or if there is no picture at all.
    """
    if not folder.is_dir():
        raise UserError(f"results folder {folder} does not exist")
    found: dict[str, Path] = {}
    for path in (p for p in sorted(folder.rglob("*")) if _is_result(p.relative_to(folder))):
        if path.stem in found:
            raise UserError(f"{found[path.stem]} and {path} are results of the same name")
        found[path.stem] = path
    keys = [pair.key for pair in pairs]
    chosen = {key: found.get(f"{key}_seed{seed}", found.get(key)) for key in keys}
    if not any(chosen.values()):
        raise UserError(f"{folder} has none of the {len(keys)} results, such as {keys[0]}_seed{seed}.png or {keys[0]}.png")
    extra = [path for name, path in found.items() if name.rpartition("_seed")[0] not in chosen and name not in chosen]
    if extra:
        raise UserError(f"{len(extra)} pictures in {folder} belong to no pair of the dataset, the first is {extra[0]}")
    return chosen


def _is_result(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.stem.endswith("_panel") and LOGS not in path.parts
