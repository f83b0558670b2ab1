"""Finds the edited image of each pair: by what its run card says, or by its name where it has none."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..datasets.base import Pair
from ..edits.stored_results import image_marks, read_made
from ..errors import UserError
from ..files.digest import file_digest
from ..files.helpers import is_helper
from ..files.opening import image_size
from ..metrics.background import REMEDY
from ..spelling import clean

log = logging.getLogger("sdist")

SHAPE = 0.05  # by which the ratio of a result's sides may differ from the wanted image's without a word
LOGS = "logs"  # folder of `sdist run`, whose images are no results
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
STOPPED = re.compile(r"_seed\d+_step\d+$")  # of images that are not finished
Jobs = dict[str, dict[str, Any]]  # what the cards say that there are, by the names of the results


def find_results(folder: Path, pairs: Iterable[Pair], seed: int = 0) -> dict[str, Path | None]:
    """The result of each pair, anywhere in the folder; None where there is none.

    It is the image whose card names the pair's source, prompts and this seed, or KEY_seedN or KEY, unless its card names another
    source. Raises UserError if two images have one name, if an image belongs to no pair, or if there is no image at all.
    """
    if not folder.is_dir():
        raise UserError(f"results folder {folder} {'is a file' if folder.exists() else 'does not exist'}")
    files: dict[str, Path] = {}
    for path in (p for p in sorted(folder.rglob("*")) if _is_result(p.relative_to(folder))):
        if path.stem in files:
            raise UserError(f"{files[path.stem]} and {path} are results of the same name")
        files[path.stem] = path
    pairs = list(pairs)
    names, owners = _names(files, pairs, seed)
    if not any(names.values()):
        first, key = pairs[0], pairs[0].key
        whose = f"that of {first.named} with its run card for seed {seed}, {key}_seed{seed}.png or {key}.png"
        raise UserError(f"{folder} has none of the {len(pairs)} results, such as {whose}")
    extra = [path for name, path in files.items() if name not in owners]
    if extra:
        raise UserError(f"{len(extra)} pictures in {folder} belong to no pair of the dataset, the first is {extra[0]}")
    return {key: files[name] if name else None for key, name in names.items()}


def _names(files: dict[str, Path], pairs: Sequence[Pair], seed: int) -> tuple[dict[str, str | None], set[str]]:
    """The name of each pair's result, and all names that belong to some pair, if with another seed."""
    jobs = _jobs(files)
    digests = {pair.key: _digest(pair.image) for pair in pairs} if jobs else {}
    names, owned = _by_content(jobs, pairs, digests, seed)
    by_key = {pair.key: pair for pair in pairs}
    for name in files:
        pair = by_key.get(name) or by_key.get(_key(name))
        if pair is None or name in owned or not _may_be(jobs.get(name), pair, digests):
            continue
        owned.add(name)
        if name == f"{pair.key}_seed{seed}" or (name == pair.key and names[name] is None):
            names[pair.key] = names[pair.key] if names[pair.key] not in (None, pair.key) else name
    return names, owned


def _by_content(jobs: Jobs, pairs: Sequence[Pair], digests: dict[str, str], seed: int) -> tuple[dict[str, str | None], set[str]]:
    """The same of those whose cards name what a pair names; of several for one pair, the one of its name or the first."""
    by_content: dict[tuple[str, ...], list[str]] = {}
    for name, job in sorted(jobs.items()):
        by_content.setdefault((job["sha256"], clean(job["source"]), clean(job["target"])), []).append(name)
    names, owned, used = dict[str, str | None](), set[str](), set[str | None]()
    for pair in pairs:
        own = by_content.get((digests.get(pair.key, ""), clean(pair.source), clean(pair.target)), [])
        free = [name for name in own if jobs[name]["seed"] == seed and name not in used]
        owned.update(own)
        names[pair.key] = next((name for name in free if _key(name) == pair.key), free[0] if free else None)
        used.add(names[pair.key])
    return names, owned


def _jobs(files: dict[str, Path]) -> Jobs:
    """Of the results that have a card beside them."""
    cards = {name: path for name, path in files.items() if path.with_suffix(".json").is_file() and path.suffix == ".png"}
    made = [one for name, path in cards.items() for one in read_made(path.parent, [name], (path.name, f"{name}.json"))]
    return {one.name: one.job for one in made}


def _digest(image: Path) -> str:
    """Of a source, which may be missing: that costs its pair alone."""
    with suppress(OSError):
        return file_digest(image)
    return ""


def _key(name: str) -> str:
    return name.rpartition("_seed")[0]


def _may_be(job: dict[str, Any] | None, pair: Pair, digests: dict[str, str]) -> bool:
    """Whether a result can be a pair's by its name; not if its card names another source image."""
    return job is None or not {digests[pair.key], pair.image.name}.isdisjoint(image_marks(job))


def check_sizes(pairs: Iterable[Pair], results: Mapping[str, Path | None]) -> None:
    """Raises UserError for results of pairs with a mask that have another size than their source: see `check_one_size`.

    The log warns of results that the published code stretches to the wanted image. Asked of the official profile, before anything
    is loaded. What cannot be read is left to what reads it.
    """
    unlike, stretched = list[str](), list[str]()
    for pair in pairs:
        with suppress(UserError):
            size, other = _two_sizes(results[pair.key], pair.image if pair.mask is not None else pair.truth)
            said = (
                f"{pair.named} has {size[0]} x {size[1]}, {'its source' if pair.mask else 'the wanted'} {other[0]} x {other[1]}"
            )
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
    is_image = path.suffix.lower() in ENDINGS and not path.stem.endswith("_panel")
    return is_image and LOGS not in path.parts and not is_helper(path) and not STOPPED.search(path.stem)
