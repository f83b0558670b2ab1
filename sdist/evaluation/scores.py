"""The scores of edited images: one row per pair, one column per metric that pairs and encoders have the means for."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..datasets.base import Pair
from ..edits.outputs import writable_folder
from ..errors import UserError
from ..files.images import load_image
from ..metrics.base import ENCODERS, Encoders, ImageMetric, Sample
from ..metrics.encoders.clip import Clip
from ..metrics.encoders.dino import Dino
from ..metrics.encoders.lpips import load_lpips
from ..metrics.profile import Profile
from ..registry import METRICS

log = logging.getLogger("sdist")

CHUNK = 64  # pairs whose images are held at once

Metrics = Mapping[str, ImageMetric]  # by name


def load_encoders(clip: str | None, dino: str | None, lpips: Path | None, cache: Path | None, device: str) -> Encoders:
    """The networks of these names; `cache` is a folder that keeps embeddings."""
    folder = None if cache is None else writable_folder(cache)
    return Encoders(
        None if clip is None else Clip(clip, device, folder),
        None if dino is None else Dino(dino, device, folder),
        None if lpips is None else load_lpips(lpips, device),
    )


def measurable(pairs: Sequence[Pair], encoders: Encoders) -> Metrics:
    """The registered metrics that at least one pair and the encoders have the means for; the log names those without encoder.

    Raises UserError if there is none.
    """
    absent = {name for name in ENCODERS if getattr(encoders, name) is None}
    metrics, without = dict[str, ImageMetric](), list[str]()
    for name, metric in _image_metrics().items():
        if all(_lacks(pair, metric) for pair in pairs):
            continue
        if missing := metric.needs & absent:
            without.append(f"{name} (without --{', --'.join(sorted(missing))})")
        else:
            metrics[name] = metric
    if without:
        log.info("not measured: %s", ", ".join(without))
    if not metrics:
        raise UserError("no metric can be measured with what the dataset has and without encoders")
    return metrics


def score(
    pairs: Sequence[Pair],
    results: Mapping[str, Path | None],
    metrics: Metrics,
    encoders: Encoders,
    profile: Profile,
    done: Callable[[int], object] = lambda count: None,
) -> pd.DataFrame:
    """One row per pair, named by its key, with its category and scores; nan where there is no result, or not what a metric needs.

    `done` gets how many pairs were scored since its last call.
    """
    tables = []
    for start in range(0, len(pairs), CHUNK):
        chunk = pairs[start : start + CHUNK]
        tables.append(_chunk(chunk, results, metrics, encoders, profile))
        done(len(chunk))
    return pd.concat(tables)


def as_counted(table: pd.DataFrame, pairs: Sequence[Pair]) -> pd.DataFrame:
    """The rows as often as their pairs count; the log names pairs that do not count once."""
    twice, never = ([pair.key for pair in pairs if test(pair.counted)] for test in (lambda n: n > 1, lambda n: n == 0))
    if twice or never:
        log.info(
            "as in the benchmark's table, %d pairs count more than once and %d never: %s", len(twice), len(never), twice + never
        )
    return table.loc[[pair.key for pair in pairs for _ in range(pair.counted)]]


def _image_metrics() -> Metrics:
    metrics = {name: METRICS.get(name)() for name in METRICS.names()}
    return {name: metric for name, metric in metrics.items() if isinstance(metric, ImageMetric)}


def _lacks(pair: Pair, metric: ImageMetric) -> frozenset[str]:
    """What the metric needs and the pair does not have."""
    parts = {"source_prompt": pair.source, "truth": pair.truth, "mask": pair.mask}
    return metric.needs - ENCODERS - {name for name, value in parts.items() if value}


def _chunk(
    pairs: Sequence[Pair], results: Mapping[str, Path | None], metrics: Metrics, encoders: Encoders, profile: Profile
) -> pd.DataFrame:
    table = pd.DataFrame({"category": [p.category for p in pairs]}, index=pd.Index([p.key for p in pairs], name="key"))
    needs = frozenset[str]().union(*(metric.needs for metric in metrics.values()))
    samples = {pair.key: _sample(pair, path, needs) for pair in pairs if (path := results[pair.key]) is not None}
    for name, metric in metrics.items():
        keys = [pair.key for pair in pairs if pair.key in samples and not _lacks(pair, metric)]
        table[name] = float("nan")
        if keys:
            table.loc[keys, name] = metric([samples[key] for key in keys], encoders, profile)
    return table


def _sample(pair: Pair, result: Path, needs: frozenset[str]) -> Sample:
    """The pair with its images, as far as a metric needs them."""
    truth = load_image(pair.truth) if "truth" in needs and pair.truth is not None else None
    mask = pair.mask() if "mask" in needs and pair.mask is not None else None
    return Sample(load_image(result), load_image(pair.image), pair.target, pair.text, pair.source, truth, mask)
