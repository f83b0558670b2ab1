"""What a metric is. One of a new file in this folder, registered by its name, needs no other edit."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float
from PIL import Image

from .encoders.clip import Clip
from .encoders.dino import Dino
from .encoders.lpips import Lpips
from .pixels import Mask
from .profile import Profile

T = TypeVar("T")

Scores = Float[np.ndarray, " n"]  # one value per image, nan where it is undefined


@dataclass(frozen=True)
class Sample:
    """An edited image and what it can be compared with; None or an empty text is what the benchmark does not have."""

    result: Image.Image
    source: Image.Image
    target_prompt: str
    description: str  # of what is new in the edited image; the target prompt where the benchmark has no other text
    source_prompt: str = ""
    truth: Image.Image | None = None  # the benchmark's own edit
    mask: Mask | None = None


@dataclass(frozen=True)
class Encoders:
    """The networks that metrics may read; None is one that was not asked for."""

    clip: Clip | None = None
    dino: Dino | None = None
    lpips: Lpips | None = None


PARTS = {"source_prompt", "truth", "mask"}  # of a sample
ENCODERS = {field.name for field in fields(Encoders)}


class Metric(ABC):
    """What all metrics have."""

    label: ClassVar[str]  # where people read
    better: ClassVar[Literal["higher", "lower"]]
    text: ClassVar[Literal["", "target prompt", "description"]] = ""  # which text of the pair it compares the edit with


class ImageMetric(Metric):
    """One value per image. It is called with samples and encoders that have all that it needs."""

    needs: ClassVar[frozenset[str]]  # what is read of all that may be missing: some of PARTS and ENCODERS

    def __init_subclass__(cls) -> None:
        """TypeError for a need that nothing can meet."""
        if wrong := cls.needs - PARTS - ENCODERS:
            raise TypeError(f"{cls.__name__} needs {', '.join(sorted(wrong))}: known are {', '.join(sorted(PARTS | ENCODERS))}")

    @abstractmethod
    def __call__(self, samples: Sequence[Sample], encoders: Encoders, profile: Profile) -> Scores:
        """The value of each sample, whatever the others are; nan where it is undefined."""


class Summary(NamedTuple):
    """One value for a group of images."""

    value: float  # nan if no image could enter it
    n: int  # images that it stands for
    undefined: int = 0  # of these, left out because their value is nan
    infinite: int = 0  # of these, with an infinite value


class GroupMetric(Metric):
    """One value per group of images, such as a category, from the scores of its images."""

    reads: ClassVar[tuple[str, ...]]  # the image metrics whose scores are read
    interval: ClassVar[bool]  # whether resampling the images gives its 95 % interval

    @abstractmethod
    def __call__(self, scores: Mapping[str, Scores], profile: Profile) -> Summary:
        """Of one group, at least one image; `scores` has the image metrics that are read, one value per image."""


def per_image(value: Callable[[Sample], float], samples: Sequence[Sample]) -> Scores:
    """The values of the samples, each by itself."""
    return np.array([value(sample) for sample in samples])


def needed(value: T | None) -> T:
    """The value, which is there because the metric's `needs` name it; LookupError if they do not."""
    if value is None:
        raise LookupError("a metric reads what its needs do not name")
    return value
