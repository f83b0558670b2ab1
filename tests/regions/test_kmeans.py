"""Clusters of feature maps against the stack that is never made, and against scikit-learn."""

import pytest
import torch
from torch.nn import functional as F

from sdist.regions.kmeans import Clustering, kmeans, lloyd, plus_plus
from sdist.regions.maps import FeatureMaps

from ..need import need

GRID = (12, 20)


def maps(seed: int = 0) -> list[torch.Tensor]:
    """Several resolutions, two of one of them."""
    generator = torch.Generator().manual_seed(seed)
    sizes = ((70, 6, 10), (5, 3, 5), (4, 6, 10), (3, 12, 20))
    return [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]


def stacked(maps: list[torch.Tensor]) -> torch.Tensor:
    """(cells, channels): what the release clusters, resolution by resolution."""
    order = [maps[0], maps[2], maps[1], maps[3]]
    resized = [F.interpolate(x[None], GRID, mode="bilinear", align_corners=True)[0] for x in order]
    return F.normalize(torch.cat(resized).flatten(1).T, dim=1)


def test_products_and_means_are_those_of_the_stack() -> None:
    features, x = FeatureMaps.of(maps(), GRID), stacked(maps())
    cells = torch.tensor([0, 7, 19, 20, 100, 239])
    torch.testing.assert_close(features.at(cells), x[cells])
    vectors = torch.randn(3, x.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(features.products(vectors), (x @ vectors.T).T.reshape(3, *GRID))
    members = F.one_hot(torch.arange(240) % 5).T.reshape(5, *GRID).double()
    torch.testing.assert_close(features.means(members), torch.stack([x[i::5].mean(0) for i in range(5)]))


def test_a_map_that_is_zero_somewhere_is_no_nan() -> None:
    zeros = [x.clone() for x in maps()]
    for x in zeros:
        x[:, 0, 0] = 0
    features = FeatureMaps.of(zeros, GRID)
    assert features.at(torch.tensor([0])).abs().max() == 0
    assert lloyd(features, features.at(torch.tensor([0, 50, 200]))).labels.shape == GRID


@pytest.mark.parametrize("k", [2, 5, 9])
def test_lloyd_is_scikit_learns_from_the_same_start(k: int) -> None:
    cluster = need("sklearn.cluster")
    features, x = FeatureMaps.of(maps(), GRID), stacked(maps())
    start = plus_plus(features, k, torch.Generator().manual_seed(k))
    theirs = cluster.KMeans(k, init=x[start].numpy(), n_init=1, algorithm="lloyd", tol=0, max_iter=500).fit(x.numpy())
    ours = lloyd(features, features.at(start))
    assert ours.labels.flatten().tolist() == theirs.labels_.tolist()
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-9)


@pytest.mark.parametrize("k", [240, 10**6])
def test_with_as_many_clusters_as_cells_each_has_its_own(k: int) -> None:
    made = kmeans(FeatureMaps.of(maps(), GRID), k, torch.Generator())
    assert (made.labels.flatten().tolist(), made.inertia) == (list(range(240)), 0.0)


def islands() -> FeatureMaps:
    """Three kinds of cells, far from each other."""
    kinds = torch.arange(240).reshape(GRID) * 3 // 240
    return FeatureMaps.of([F.one_hot(kinds).permute(2, 0, 1).double() + 0.01 * maps()[3]], GRID)


def test_what_is_far_apart_is_found_from_any_seed() -> None:
    kinds = torch.arange(240).reshape(GRID) * 3 // 240
    for seed in range(5):
        labels = kmeans(islands(), 3, torch.Generator().manual_seed(seed)).labels
        assert len(set(zip(kinds.flatten().tolist(), labels.flatten().tolist(), strict=True))) == 3


def test_starts_are_a_function_of_the_generator_and_more_of_them_are_no_worse() -> None:
    features = FeatureMaps.of(maps(), GRID)

    def draw(seed: int, starts: int = 1) -> Clustering:
        return kmeans(features, 6, torch.Generator().manual_seed(seed), starts)

    assert torch.equal(draw(3).labels, draw(3).labels)
    assert not torch.equal(draw(3).labels, draw(4).labels)
    assert draw(3, 4).inertia <= draw(3).inertia


def test_as_many_clusters_as_cells_and_cells_that_are_equal() -> None:
    few = FeatureMaps.of([x[:, :1, :2] for x in maps()[1:2]], (1, 2))
    assert sorted(kmeans(few, 2, torch.Generator().manual_seed(0)).labels.flatten().tolist()) == [0, 1]
    equal = FeatureMaps.of([torch.ones(4, 3, 5, dtype=torch.float64)], (3, 5))
    found = kmeans(equal, 4, torch.Generator().manual_seed(0))
    assert found.labels.unique().numel() == 1
    assert found.inertia == pytest.approx(0, abs=1e-9)
