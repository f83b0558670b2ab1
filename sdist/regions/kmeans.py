"""K-means of an image's feature vectors. Lloyd 1982; starts by k-means++, Arthur and Vassilvitskii 2007."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from .maps import FeatureMaps

ROUNDS = 300  # of Lloyd at most


class Clustering(NamedTuple):
    """A label for each cell, and the sum of squared distances of the cells to their centroids."""

    labels: Int[Tensor, "height width"]
    inertia: float


def lloyd(features: FeatureMaps, centroids: Float[Tensor, "k c"], rounds: int = ROUNDS) -> Clustering:
    """From given centroids until no label changes. A centroid that no cell is nearest to stays where it is."""
    labels = None
    for _ in range(rounds):
        distances = _distances(features, centroids)
        before, labels = labels, distances.argmin(0)
        if before is not None and torch.equal(labels, before):
            break
        members = F.one_hot(labels, len(centroids)).permute(2, 0, 1).to(centroids)
        filled = members.sum((1, 2)) > 0
        centroids = centroids.clone()
        centroids[filled] = features.means(members[filled])
    assert labels is not None
    return Clustering(labels, float(_distances(features, centroids).gather(0, labels[None]).sum()))


def kmeans(features: FeatureMaps, k: int, generator: torch.Generator, starts: int = 1) -> Clustering:
    """The best of several runs from k-means++ starts; the generator is a CPU's. As many clusters as cells: each has its own."""
    cells = features.norms.numel()
    if k >= cells:
        return Clustering(torch.arange(cells, device=features.norms.device).view(features.grid), 0.0)
    runs = [lloyd(features, features.at(plus_plus(features, k, generator))) for _ in range(starts)]
    return min(runs, key=lambda run: run.inertia)


def plus_plus(features: FeatureMaps, k: int, generator: torch.Generator) -> Int[Tensor, " k"]:
    """Cells to start from: the first drawn evenly, each other one by its squared distance to the nearest that is chosen."""
    chosen, nearest = list[int](), torch.ones(features.grid).flatten()
    for _ in range(k):
        chosen.append(int(torch.multinomial(nearest.double(), 1, generator=generator)))
        last = torch.tensor(chosen[-1:], device=features.norms.device)
        distance = (2 - 2 * features.products(features.at(last)))[0].flatten().clamp(min=0).cpu()
        nearest = distance if len(chosen) == 1 else torch.minimum(nearest, distance)
        if not nearest.any():  # all cells are equal to one that is chosen
            nearest = torch.ones_like(nearest)
    return torch.tensor(chosen, device=features.norms.device)


def _distances(features: FeatureMaps, centroids: Float[Tensor, "k c"]) -> Float[Tensor, "k height width"]:
    """|x_p - c|^2, where |x_p| = 1."""
    return 1 - 2 * features.products(centroids) + centroids.square().sum(1)[:, None, None]
