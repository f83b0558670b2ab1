"""The folder of an evaluation: the scores, their summary, and in evaluation.json what was scored, for pages to show."""

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd

from .. import __version__
from ..datasets.base import Pair, read_json
from ..errors import UserError, unknown
from ..metrics.base import ENCODERS, Encoders
from ..registry import METRICS

RECORD = "evaluation.json"  # what was scored and with what
PACKAGES = ("torch", "transformers", "pillow", "numpy", "scipy")  # that scores depend on


class ScoredPair(NamedTuple):
    """A pair and its result, as paths: the images may be moved later."""

    source_prompt: str
    target_prompt: str
    source: str
    result: str | None  # None if there was none
    truth: str | None  # None if the dataset has none


class Evaluation(NamedTuple):
    """What `sdist evaluate` left in a folder."""

    per_image: pd.DataFrame
    summary: pd.DataFrame
    profile: str
    pairs: dict[str, ScoredPair]  # by key
    made_with: Mapping[str, Any] = MappingProxyType({})  # "encoders" and "versions" of packages; empty in older ones


def scored_pairs(pairs: Iterable[Pair], results: Mapping[str, Path | None]) -> dict[str, ScoredPair]:
    """Prompts and absolute paths of pairs and their results, by key."""
    return {
        p.key: ScoredPair(p.source, p.target, str(p.image.resolve()), _path(results[p.key]), _path(p.truth)) for p in pairs
    }  # fmt: skip


def made_with(encoders: Encoders) -> dict[str, Any]:
    """What scores depend on beside images: the networks that measured, and versions of packages."""
    networks = {name: network.record for name in sorted(ENCODERS) if (network := getattr(encoders, name)) is not None}
    return {"encoders": networks, "versions": {"sdist": __version__, **{name: version(name) for name in PACKAGES}}}


def to_json(evaluation: Evaluation) -> str:
    """The content of evaluation.json."""
    pairs = {key: pair._asdict() for key, pair in evaluation.pairs.items()}
    return json.dumps({"profile": evaluation.profile, **evaluation.made_with, "pairs": pairs}, indent=1)


def is_of_another(folder: Path, profile: str, pairs: Mapping[str, ScoredPair], made: Mapping[str, Any]) -> bool:
    """Whether the folder has scores, and they are not of these pairs and result files, by this profile and these encoders."""
    if not (folder / RECORD).exists():
        return False
    try:
        record = read_json(folder / RECORD)
        there = [record["profile"], record["encoders"], record["pairs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return there != json.loads(json.dumps([profile, made["encoders"], {key: pair._asdict() for key, pair in pairs.items()}]))


def read_evaluation(folder: Path) -> Evaluation:
    """What `sdist evaluate` wrote. Raises UserError if it did not, or if a metric is not registered here."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; sdist evaluate leaves evaluations/NAME for the results in a folder NAME")
    try:
        per_image = pd.read_csv(folder / "per_image.csv", dtype={"key": str, "category": str}).set_index("key")
        summary = pd.read_csv(folder / "summary.csv", dtype={"group": str}).set_index(["group", "metric"])
        summary = summary.assign(text=summary["text"].fillna("") if "text" in summary else "")
        record = read_json(folder / RECORD)
        pairs = {key: ScoredPair(**record["pairs"][key]) for key in per_image.index}
        profile, made = record["profile"], {name: record[name] for name in ("encoders", "versions") if name in record}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is not a folder that sdist evaluate wrote: {' '.join(str(error).split())[:200]}") from None
    for name in [*per_image.columns.drop("category"), *summary.index.unique("metric")]:
        if name not in METRICS.names():
            raise unknown("metric", name, METRICS.names(), str(folder))
    return Evaluation(per_image, summary, profile, pairs, made)


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())
