"""The constants of a method are per element: an edit moves each element alike at every size of the latents."""

from dataclasses import replace

import pytest
import torch

from sdist.distillation.distiller import ScoreDistiller
from sdist.distillation.method import Method
from sdist.gammas import ReverseSigmoid
from sdist.losses.base import predict_for
from sdist.losses.cds import CDS
from sdist.losses.dds import DDS
from sdist.losses.ids import IDS
from sdist.losses.sds import SDS
from sdist.models.base import Backbone
from sdist.normalizers import UnitStd
from sdist.optimizer import OptimizerSettings
from sdist.prediction import Edit
from sdist.regularizers.source_pull import SourcePull

from ..conftest import Gaussian, gaussian_edit, make_draw, progress, run_to_end, tiny_edit

METHODS = {
    "dds": Method(DDS(), optimizer=OptimizerSettings(lr=0.0488), steps=8),
    "parts of lusd": Method(
        SDS(), {"source_pull": SourcePull()}, None, UnitStd(), ReverseSigmoid(), OptimizerSettings(lr=0.488), 8
    ),
    "adam": Method(DDS(), optimizer=OptimizerSettings("Adam", lr=0.05), steps=8),
}


def edit_of(side: int) -> Edit:
    z = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(side), dtype=torch.float64)
    return replace(gaussian_edit(1), source=z)


def mean_step(method: Method, side: int) -> float:
    """Mean over steps and elements of how far an element goes in one step."""
    distiller = run_to_end(ScoreDistiller(Gaussian(), edit_of(side), method, [(0, "a")]))
    norms = torch.stack([r.values["step_norm"][0] for r in distiller.rounds])
    return float(norms.mean()) / (4 * side * side) ** 0.5


def moved(method: Method, side: int) -> float:
    """How far an element goes in a whole run: the root of the mean square."""
    edit = edit_of(side)
    distiller = run_to_end(ScoreDistiller(Gaussian(), edit, method, [(0, "a")]))
    return float((distiller.latents.detach() - edit.source).square().mean().sqrt())


@pytest.mark.parametrize("name", METHODS)
def test_an_element_moves_as_far_at_every_size(name: str) -> None:
    assert mean_step(METHODS[name], 16) == pytest.approx(mean_step(METHODS[name], 8), rel=0.1)
    assert moved(METHODS[name], 16) == pytest.approx(moved(METHODS[name], 8), rel=0.1)


def test_the_filter_sees_the_same_sd_at_every_size() -> None:
    """SDS, whose gradient holds the noise; more elements make its SD surer, not larger."""
    sds = {}
    for side in (8, 32):
        distiller = run_to_end(ScoreDistiller(Gaussian(), edit_of(side), replace(METHODS["parts of lusd"], steps=40), [(0, "a")]))
        sds[side] = torch.cat([r.values["grad_std"] for r in distiller.rounds])
    assert float(sds[32].mean()) == pytest.approx(float(sds[8].mean()), rel=0.05)


def test_the_contrastive_term_of_cds_alone_shrinks_with_the_size(tiny: Backbone) -> None:
    """It is a mean over patches; the release scales the rest by 2000 / (H W), which `cut_scale` is the inverse of at 64 x 64."""

    def share(side: int) -> float:
        edit, loss = tiny_edit(tiny, 1, side, side), CDS()
        draw = make_draw(tiny, 1, 300, shape=(4, side, side), dtype=torch.float32)
        z = (edit.source + 0.3 * draw.noise.flip(-1)).requires_grad_()
        terms = loss.terms(predict_for(loss, tiny, z, edit, draw, loss.branches, loss.hooks, progress(1)))
        return float(terms.cut.norm() / terms.dds.norm())

    assert 1.5 < share(8) / share(16) < 6  # a quarter of the elements


def test_the_released_scale_depends_on_the_size() -> None:
    released = replace(METHODS["dds"], optimizer=OptimizerSettings(lr=0.1, scale="released"))
    assert mean_step(released, 8) / mean_step(released, 16) == pytest.approx(4, rel=0.05)


def test_the_correction_of_ids_is_as_large_at_every_size() -> None:
    """The mean change of an element of the noise."""

    def change(side: int) -> float:
        edit, loss, network = edit_of(side), IDS(), Gaussian()
        draw = make_draw(network, 1, 300, shape=(4, side, side))
        p = predict_for(loss, network, edit.source, edit, draw, loss.branches, (), progress(1))
        return float((p.draw.noise - draw.noise).square().mean().sqrt())

    assert change(16) == pytest.approx(change(8), rel=1e-6)
