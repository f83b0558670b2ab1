"""One row a picture: every metric that the dataset has the means for."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from ..datasets.base import Pair
from ..edits.outputs import writable_folder
from ..errors import UserError
from ..files.images import load_image
from ..metrics import magicbrush, pie_bench
from ..metrics.encoders import Clip, Dino
from ..metrics.lpips import Lpips, load_lpips
from ..metrics.profile import Profile
from ..metrics.similarity import Scores

log = logging.getLogger("sdist")

CHUNK = 64  # pairs whose pictures are held at once


@dataclass(frozen=True)
class Encoders:
    clip: Clip
    dino: Dino | None = None
    lpips: Lpips | None = None


def load_encoders(clip: str, dino: str | None, lpips: Path | None, cache: str | None, device: str) -> Encoders:
    """The networks of these names; `cache` is a folder that keeps embeddings."""
    folder = None if cache is None else writable_folder(Path(cache))
    return Encoders(
        Clip(clip, device, folder),
        None if dino is None else Dino(dino, device, folder),
        None if lpips is None else load_lpips(lpips, device),
    )


def score(
    pairs: Sequence[Pair],
    results: Mapping[str, Path | None],
    encoders: Encoders,
    profile: Profile,
    done: Callable[[int], None] = lambda count: None,
) -> pd.DataFrame:
    """A row a pair, named by its key, with its category and scores; nan where there is no result.

    clip_t and clip_r always; l1, l2, clip_i and dino where the dataset has the wanted picture; PIE-Bench's metrics where it has
    masks. `done` hears how many pairs were scored.
    """
    tables = []
    for start in range(0, len(pairs), CHUNK):
        chunk = pairs[start : start + CHUNK]
        tables.append(_chunk(chunk, results, encoders, profile))
        done(len(chunk))
    return pd.concat(tables)


def as_counted(table: pd.DataFrame, pairs: Sequence[Pair]) -> pd.DataFrame:
    """The rows as often as their pairs count; what is not counted once is logged."""
    twice, never = ([pair.key for pair in pairs if test(pair.counted)] for test in (lambda n: n > 1, lambda n: n == 0))
    if twice or never:
        log.info(
            "as in the benchmark's table, %d pairs count more than once and %d never: %s", len(twice), len(never), twice + never
        )
    return table.loc[[pair.key for pair in pairs for _ in range(pair.counted)]]


def _chunk(pairs: Sequence[Pair], results: Mapping[str, Path | None], encoders: Encoders, profile: Profile) -> pd.DataFrame:
    table = pd.DataFrame({"category": [p.category for p in pairs]}, index=pd.Index([p.key for p in pairs], name="key"))
    made = [pair for pair in pairs if results[pair.key] is not None]
    if made:
        edits = [load_image(results[pair.key]) for pair in made]  # type: ignore[arg-type]
        sources = [load_image(pair.image) for pair in made]
        for name, values in _scores(made, edits, sources, encoders, profile).items():
            table.loc[[pair.key for pair in made], name] = values
    return table


def _scores(
    pairs: Sequence[Pair], edits: list[Image.Image], sources: list[Image.Image], encoders: Encoders, profile: Profile
) -> dict[str, Scores]:
    masked = all(pair.mask is not None for pair in pairs)
    if masked and encoders.dino is None:
        raise UserError("a dataset with masks needs a DINO model for the structure distance; name one with --dino")
    clip, local, whole = encoders.clip, [pair.text for pair in pairs], [pair.target for pair in pairs]
    if all(pair.truth is not None for pair in pairs):
        truths = [load_image(pair.truth) for pair in pairs]  # type: ignore[arg-type]
        turns = [magicbrush.Turn(*row) for row in zip(edits, sources, truths, local, whole, strict=True)]
        found = magicbrush.score(turns, clip, encoders.dino, profile)
    else:
        found = magicbrush.against_text(clip.images(edits, profile), sources, local, whole, clip, profile)
    if masked:
        cases = [pie_bench.Case(e, s, p.mask(), p.target) for e, s, p in zip(edits, sources, pairs, strict=True)]  # type: ignore[misc]
        found |= pie_bench.score(cases, clip, encoders.dino, encoders.lpips, profile)
    return found
