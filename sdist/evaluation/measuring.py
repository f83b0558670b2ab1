"""Asks metrics for scores so that one bad image costs its row, and one bad metric its column."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..datasets.base import Pair
from ..errors import UserError
from ..files.images import load_image
from ..metrics.base import Encoders, ImageMetric, Sample, Scores
from ..metrics.profile import Profile
from ..prompts import parse_weights

Report = Callable[[str], None]  # takes one problem, in one line
EVERY = ""  # in the place of a key: what a metric fails with on all images


class Measurement(NamedTuple):
    """What a metric gave for images, by key."""

    values: dict[str, float]
    reasons: dict[str, str]  # why there is no value, in one line


class WrongCountError(UserError):
    """Of values, so that none is known to belong to an image."""


def read_samples(
    pairs: Sequence[Pair], results: Mapping[str, Path | None], needs: frozenset[str], report: Report
) -> dict[str, Sample]:
    """The pairs that have a result, with their images, by key; `report` hears of each whose images cannot be read."""
    samples = {}
    for pair in pairs:
        if (path := results[pair.key]) is not None:
            try:
                samples[pair.key] = _sample(pair, path, needs)
            except Exception as error:  # whatever a format's mask or a damaged image raises
                report(f"{pair.named} is not scored: {reason_of(error)}")
    return samples


def measure(metric: ImageMetric, samples: Mapping[str, Sample], encoders: Encoders, profile: Profile) -> Measurement:
    """All images at once, and where that fails, one by one."""
    try:
        values = _asked(metric, list(samples.values()), encoders, profile)
        return Measurement(dict(zip(samples, values, strict=True)), {})
    except WrongCountError as error:
        return Measurement({}, {EVERY: reason_of(error)})
    except Exception as error:  # a metric may be anybody's
        first = reason_of(error)
    alone = Measurement({}, {})
    for key, sample in samples.items():
        try:
            alone.values[key] = _asked(metric, [sample], encoders, profile)[0]
        except Exception as error:
            alone.reasons[key] = reason_of(error)
    is_same = len(samples) > 1 and len(alone.reasons) == len(samples) and {*alone.reasons.values()} == {first}
    return Measurement({}, {EVERY: first}) if is_same else alone


def reason_of(error: Exception) -> str:
    """An error in one line, with its class where it is not meant for people."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _asked(metric: ImageMetric, samples: list[Sample], encoders: Encoders, profile: Profile) -> Scores:
    values = np.asarray(metric(samples, encoders, profile), np.float64)
    if values.shape != (len(samples),):
        raise WrongCountError(f"it gave values of shape {values.shape} for {len(samples)} images")
    return values


def _sample(pair: Pair, result: Path, needs: frozenset[str]) -> Sample:
    """The pair with its images, as far as a metric needs them, and its texts without the signs of weights."""
    truth = load_image(pair.truth) if "truth" in needs and pair.truth is not None else None
    mask = pair.mask() if "mask" in needs and pair.mask is not None else None
    target, text, source = (parse_weights(prompt)[0] for prompt in (pair.target, pair.text, pair.source))
    return Sample(load_image(result), load_image(pair.image), target, text, source, truth, mask)
