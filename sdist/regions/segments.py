"""The region that an instruction means: clusters of features that its words look at. LIME, arXiv 2312.09256, section 4.1."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..hooks.layers import AttentionLayout
from ..hooks.localization import Localization, LocalizationRecorder, layers_at
from ..prediction import Branch, Hook
from ..registry import REGIONS
from .base import Region, RegionSource, at_least_one, grid_of
from .kmeans import kmeans
from .maps import FeatureMaps

log = logging.getLogger("sdist")


@REGIONS.register("segments")
@dataclass(frozen=True)
class Segments(RegionSource):
    """The union of the clusters of features that hold one of the cells with the most attention."""

    clusters: int = 8  # k of k-means
    points: int = 100  # cells with the most attention
    starts: int = 1  # of k-means, of which the best is taken
    levels: tuple[int, ...] = (0, 1, 2)  # features and attention at 1 / 2^level of the latent's side, where there are any

    def __post_init__(self) -> None:
        at_least_one(self, "clusters", "points", "starts")

    def check(self, layout: AttentionLayout) -> None:
        layers_at(layout, self.levels)

    def hook(self, instructed: Branch, bare: Branch) -> Hook:
        return LocalizationRecorder(bare, instructed, tuple(self.levels))

    def regions(
        self, seen: Localization, related: Sequence[Sequence[int]], generators: Sequence[torch.Generator]
    ) -> list[Region]:
        grid = grid_of(seen.size)
        maps = attention_of(seen, related, grid)
        rows = zip(maps, generators, strict=True)
        return [self.region(features_of(seen, image, grid), attention, draw) for image, (attention, draw) in enumerate(rows)]

    def region(self, features: FeatureMaps, attention: Float[Tensor, "height width"], generator: torch.Generator) -> Region:
        """Of one image; fewer clusters and points where it has fewer cells."""
        cells = attention.numel()
        if cells < max(self.clusters, self.points):
            log.warning("%d clusters, %d points: the image has %d cells, no more are taken", self.clusters, self.points, cells)
        labels = kmeans(features, self.clusters, generator, self.starts).labels
        points = strongest(attention, min(self.points, cells))
        return Region(holding(labels, points), labels, attention, points)


def strongest(attention: Float[Tensor, "height width"], n: int) -> Int[Tensor, " n"]:
    return attention.flatten().topk(n).indices


def holding(labels: Int[Tensor, "height width"], points: Int[Tensor, " n"]) -> Bool[Tensor, "height width"]:
    """All cells of the segments that hold one of the points."""
    return torch.isin(labels, labels.flatten()[points].unique())


def features_of(seen: Localization, image: int, grid: tuple[int, int]) -> FeatureMaps:
    """Of one image on a grid, in float64 where the device has it: of cells between two segments rounding decides."""
    dtype = torch.float32 if next(iter(seen.features.values())).device.type == "mps" else torch.float64
    return FeatureMaps.of([x[image].to(dtype) for x in seen.features.values()], grid)


def attention_of(seen: Localization, related: Sequence[Sequence[int]], grid: tuple[int, int]) -> Float[Tensor, "b height width"]:
    """The probability of related tokens on a grid, mean over layers, heads and tokens; 0 where there are none."""
    keys = next(iter(seen.queries.values()))[1]
    columns = keys.new_zeros(len(related), keys.shape[1], 1)
    for row, tokens in enumerate(related):
        columns[row, list(tokens)] = 1 / max(1, len(tokens))
    return attention_by(seen, columns, grid)


def attention_by(seen: Localization, weights: Float[Tensor, "b l 1"], grid: tuple[int, int]) -> Float[Tensor, "b height width"]:
    """The weighted sum of all tokens' probabilities on a grid, mean over layers and heads."""
    maps = [F.interpolate(x, grid, mode="bilinear", align_corners=True) for x in seen.maps(weights).values()]
    return torch.stack(maps).mean(0)[:, 0]
