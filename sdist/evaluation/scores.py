"""The scores of edited images: one row per pair, one column per metric that pairs and encoders have the means for."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..datasets.base import Pair
from ..edits.outputs import writable_folder
from ..errors import UserError
from ..metrics.base import ENCODERS, Encoders, GroupMetric, ImageMetric
from ..metrics.encoders.clip import Clip
from ..metrics.encoders.dino import Dino
from ..metrics.encoders.lpips import load_lpips
from ..metrics.profile import Profile
from ..registry import METRICS
from .measuring import EVERY, Measurement, Report, measure, read_samples

log = logging.getLogger("sdist")

CHUNK = 64  # pairs whose images are held at once

Metrics = Mapping[str, ImageMetric]  # by name


def load_encoders(clip: str | None, dino: str | None, lpips: Path | None, cache: Path | None, device: str) -> Encoders:
    """The networks of these names; `cache` is a folder that keeps embeddings. Raises UserError if one cannot be loaded."""
    folder = None if cache is None else writable_folder(cache)
    try:
        clip_network = None if clip is None else Clip(clip, device, folder)
        dino_network = None if dino is None else Dino(dino, device, folder)
    except UserError as error:
        raise UserError(
            f"evaluation model {error}. --clip and --dino take a folder or a hub id; --clip tinyworld needs no download: it is "
            "in the package, and knows drawn scenes"
        ) from None
    return Encoders(clip_network, dino_network, None if lpips is None else load_lpips(lpips, device))


def measurable(pairs: Sequence[Pair], encoders: Encoders) -> Metrics:
    """The registered metrics that at least one pair and the encoders have the means for.

    The log names those without encoder, and encoders that nothing is measured with. Raises UserError if there is no metric.
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
    for name in sorted(ENCODERS - absent - {need for metric in metrics.values() for need in metric.needs}):
        _report_unused(name)
    if not metrics:
        raise UserError("no metric can be measured with what the dataset has and without encoders")
    return metrics


def metrics_of(name: str, metrics: Metrics) -> Metrics:
    """Those that a metric of that name is made of: itself, or what a group metric reads. Raises UserError if one is not there."""
    kind = METRICS.get(name)
    names = kind.reads if issubclass(kind, GroupMetric) else (name,)
    needs = {need for each in names if each not in metrics for need in _image_metrics()[each].needs}
    if needs:
        raise UserError(f"{name} cannot be measured here: it needs {', '.join(sorted(needs))}; what can be: {', '.join(metrics)}")
    return {each: metrics[each] for each in names}


def _report_unused(encoder: str) -> None:
    """Says why nothing is measured with an encoder that was asked for."""
    readers = {name: metric.needs - ENCODERS for name, metric in _image_metrics().items() if encoder in metric.needs}
    wants = "; ".join(f"{name} needs {' and '.join(sorted(needs)) or 'nothing else'}" for name, needs in readers.items())
    log.warning("--%s is not used: no pair of this dataset has what its metrics need (%s)", encoder, wants)


def instructed(pairs: Sequence[Pair], metrics: Metrics) -> set[str]:
    """The metrics that compare an edit with an instruction, where some pair has no description of what is to be seen."""
    texts = {"target prompt": [pair.target for pair in pairs], "description": [pair.text for pair in pairs]}
    orders = [pair.instruction for pair in pairs]
    given = {kind for kind, of in texts.items() if any(order and order == text for order, text in zip(orders, of, strict=True))}
    return {name for name, metric in metrics.items() if metric.text in given}


def score(
    pairs: Sequence[Pair],
    results: Mapping[str, Path | None],
    metrics: Metrics,
    encoders: Encoders,
    profile: Profile,
    report: Report,
    done: Callable[[int], object] = lambda count: None,
) -> pd.DataFrame:
    """One row per pair, named by its key, with its category and scores; nan where there is no result, or not what a metric needs.

    `report` hears of what cannot be scored, `done` gets how many pairs were since its last call. Raises UserError if that is
    every one of them.
    """
    tables, problems = list[pd.DataFrame](), list[str]()
    for start in range(0, len(pairs), CHUNK):
        chunk = pairs[start : start + CHUNK]
        tables.append(_chunk(chunk, results, metrics, encoders, profile, problems.append))
        done(len(chunk))
    table = pd.concat(tables)
    if problems and table[list(metrics)].isna().all(axis=None):
        raise UserError(f"nothing can be scored; the first problem of {len(problems)}: {problems[0]}")
    for problem in dict.fromkeys(problems):
        report(problem)
    return table


def as_counted(table: pd.DataFrame, pairs: Sequence[Pair]) -> pd.DataFrame:
    """The rows as often as their pairs count; the log names pairs that do not count once."""
    twice, never = ([pair.named for pair in pairs if test(pair.counted)] for test in (lambda n: n > 1, lambda n: n == 0))
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
    pairs: Sequence[Pair],
    results: Mapping[str, Path | None],
    metrics: Metrics,
    encoders: Encoders,
    profile: Profile,
    report: Report,
) -> pd.DataFrame:
    table = pd.DataFrame({"category": [p.category for p in pairs]}, index=pd.Index([p.key for p in pairs], name="key"))
    needs = frozenset[str]().union(*(metric.needs for metric in metrics.values()))
    samples = read_samples(pairs, results, needs, report)
    lost: dict[tuple[str, str], list[str]] = {}
    for name, metric in metrics.items():
        table[name] = float("nan")
        able = {pair.key: samples[pair.key] for pair in pairs if pair.key in samples and not _lacks(pair, metric)}
        values, reasons = measure(metric, able, encoders, profile) if able else Measurement({}, {})
        table.loc[list(values), name] = list(values.values())
        for key, reason in reasons.items():
            lost.setdefault((key, reason), []).append(name)
    named = {pair.key: pair.named for pair in pairs}
    for (key, reason), names in lost.items():
        whose = "metrics fail" if key == EVERY else f"{named[key]} has not all scores"
        report(f"{whose} ({', '.join(names)}): {reason}")
    return table
