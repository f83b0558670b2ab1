"""Clusters of features as a mask for score distillation."""

from dataclasses import replace

import pytest
import torch

from sdist.errors import UserError
from sdist.models.base import Backbone
from sdist.prediction import Prediction, State, predict
from sdist.regions.segments import attention_by
from sdist.regularizers.cluster_mask import ClusterMask

from ..conftest import make_draw, progress, tiny_edit


def prediction(network: Backbone, mask: ClusterMask, rows: tuple[int, ...] = (0, 1)) -> Prediction:
    chosen = torch.tensor(rows)
    edit = tiny_edit(network, 2, 8, 12).narrow(chosen)
    draw = make_draw(network, 2, [300, 700], shape=(4, 8, 12), dtype=torch.float32).narrow(chosen)
    p = predict(network, edit.source + 0.1, edit, draw, mask.branches, mask.hooks, progress(len(rows), step=5))
    return replace(p, state=State(2))


def test_it_is_one_on_whole_clusters_with_the_cells_that_are_looked_at(tiny: Backbone) -> None:
    mask = ClusterMask(clusters=4, points=1)
    p = prediction(tiny, mask)
    newest = mask.newest(p)
    assert newest.shape == (2, 1, 8, 12)
    assert newest.unique().tolist() == [0, 1]
    attention = attention_by(p.recorded[mask.hooks[0]], p.edit.focus[..., None], (8, 12)).flatten(1)
    assert newest.flatten(1).gather(1, attention.argmax(1, keepdim=True)).tolist() == [[1], [1]]
    assert ClusterMask(clusters=4, points=96).newest(p).all()
    assert ClusterMask(clusters=500, points=500).newest(p).all()


@pytest.mark.parametrize("clusters", [2, 5, 8])
def test_company_changes_nothing(tiny: Backbone, clusters: int) -> None:
    mask = ClusterMask(clusters=clusters, points=1)
    together = mask.newest(prediction(tiny, mask))
    for row in (0, 1):
        assert torch.equal(mask.newest(prediction(tiny, mask, (row,)))[0], together[row])


def test_an_image_without_words_is_not_masked(tiny: Backbone) -> None:
    mask = ClusterMask(clusters=4, points=1)
    p = prediction(tiny, mask)
    focus = p.edit.focus.clone()
    focus[0] = 0
    out = mask.mask(replace(p, edit=replace(p.edit, focus=focus)))
    assert out[0].min() == 1
    assert out[1].min() == 0.5


def test_what_cannot_be(tiny: Backbone) -> None:
    with pytest.raises(UserError, match="clusters must be at least 1, got 0"):
        ClusterMask(clusters=0)
    with pytest.raises(UserError, match="momentum of a mask must be within"):
        ClusterMask(momentum=0)
    with pytest.raises(UserError, match=r"no cross-attention at level 6 .*; have levels \[0, 1, 2\]"):
        prediction(tiny, ClusterMask(levels=(6,)))
