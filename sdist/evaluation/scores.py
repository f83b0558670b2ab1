"""One row a picture: every metric that the dataset has the means for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..datasets.base import Pair
from ..errors import UserError
from ..images import load_image
from ..metrics import pie_bench
from ..metrics.encoders import Clip, Dino
from ..metrics.lpips import Lpips
from ..metrics.pixels import l1, l2
from ..metrics.profile import Profile
from ..metrics.similarity import Scores, clip_i, clip_r, clip_t, dino_similarity

CHUNK = 64  # pairs whose pictures are held at once


@dataclass(frozen=True)
class Encoders:
    clip: Clip
    dino: Dino | None = None
    lpips: Lpips | None = None


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
    clip = encoders.clip
    embedded = clip.images(edits, profile)
    found = {
        "clip_t": clip_t(embedded, clip.texts([pair.text for pair in pairs])),
        "clip_r": clip_r(embedded, clip.images(sources, profile), clip.texts([pair.target for pair in pairs]), profile),
    }
    if all(pair.truth is not None for pair in pairs):
        truths = [load_image(pair.truth) for pair in pairs]  # type: ignore[arg-type]
        found |= {name: _each(metric, edits, truths, profile) for name, metric in (("l1", l1), ("l2", l2))}
        found["clip_i"] = clip_i(embedded, clip.images(truths, profile))
        if encoders.dino is not None:
            found["dino"] = dino_similarity(encoders.dino.images(edits, profile), encoders.dino.images(truths, profile))
    if all(pair.mask is not None for pair in pairs):
        if encoders.dino is None:
            raise UserError("a dataset with masks needs a DINO model for the structure distance; name one with --dino")
        cases = [pie_bench.Case(e, s, p.mask(), p.target) for e, s, p in zip(edits, sources, pairs, strict=True)]  # type: ignore[misc]
        found |= pie_bench.score(cases, clip, encoders.dino, encoders.lpips, profile)
    return found


def _each(metric: Callable[..., float], edits: list[Image.Image], truths: list[Image.Image], profile: Profile) -> Scores:
    return np.array([metric(a, b, profile) for a, b in zip(edits, truths, strict=True)])
