"""Losses against closed forms: an analytic predictor, and rows of coefficients against the dedicated classes."""

import pytest
import torch

from sdist.errors import UserError
from sdist.losses.base import weight
from sdist.losses.cds import CDS, patch_nce
from sdist.losses.combination import Combination
from sdist.losses.dds import DDS
from sdist.losses.sbp import SBP
from sdist.losses.sds import SDS
from sdist.prediction import SOURCE, TARGET, Branch, Prediction, predict, rows_of

from ..conftest import MEANS, Gaussian, branches_of, gaussian_edit, make_draw, progress

T = 400


def prediction(b: int = 1, t: int | list[int] = T, seed: int = 0, z: torch.Tensor | None = None, **means: float) -> Prediction:
    network, edit = Gaussian(), gaussian_edit(b, **means)
    z = edit.source + 0.3 if z is None else z
    return predict(network, z, edit, make_draw(network, b, t, seed), branches_of(edit), (), progress(b))


def slope(p: Prediction, s: float = 0.5) -> torch.Tensor:
    """sigma alpha / (alpha^2 s^2 + sigma^2), the factor of a mean in the analytic prediction."""
    return (p.draw.sigma * p.draw.alpha / (p.draw.alpha**2 * s**2 + p.draw.sigma**2))[:, None, None, None]


def test_sbp_is_the_constant_difference_of_the_means() -> None:
    p = prediction()
    expected = slope(p) * (MEANS["source"] - MEANS["target"])
    torch.testing.assert_close(SBP().gradient(p), expected.expand(1, 4, 8, 8), rtol=0, atol=1e-10)


def test_dds_at_guidance_one_does_not_depend_on_the_noise() -> None:
    gradients = [DDS(guidance_scale=1).gradient(prediction(seed=seed)) for seed in (0, 1)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


def test_dds_moves_along_the_difference_of_means_when_latents_are_equal() -> None:
    edit = gaussian_edit()
    p = prediction(z=edit.source)
    torch.testing.assert_close(DDS(1.0).gradient(p), SBP().gradient(p), rtol=0, atol=1e-10)


def test_sds_averages_to_its_expectation_and_vanishes_at_the_mean() -> None:
    means = {"target": 1.0, "null": 1.0}
    z = torch.full((1, 4, 8, 8), 3.0, dtype=torch.float64)
    gradients = torch.stack([SDS(7.5).gradient(prediction(seed=s, z=z, **means)).mean() for s in range(400)])
    expected = slope(prediction()) * (3.0 - 1.0)
    assert abs(gradients.mean() - expected.item()) < 4 * gradients.std() / 400**0.5
    assert gradients.std() > 0


@pytest.mark.parametrize("loss", [DDS(7.5), DDS(1.0), SBP(2.0)])
def test_an_edit_into_itself_has_no_gradient(loss: DDS | SBP) -> None:
    p = prediction(z=gaussian_edit().source, target=0.5, source=0.5)
    assert torch.equal(loss.gradient(p), torch.zeros(1, 4, 8, 8, dtype=torch.float64))


W = 7.5
ROWS = {
    "sds": (SDS(W), Combination(edit_target=W, edit_null=1 - W, noise=-1)),
    "sbp": (SBP(3.0), Combination(edit_target=3, edit_source=-3)),
    "dds": (DDS(W), Combination(edit_target=W, edit_null=1 - W, source_source=-W, source_null=W - 1)),
    "dds at guidance 1": (DDS(1.0), Combination(edit_target=1, source_source=-1)),
    "sds, sigma2": (SDS(W, "sigma2"), Combination(edit_target=W, edit_null=1 - W, noise=-1, weighting="sigma2")),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_coefficients_equals_the_dedicated_class(name: str) -> None:
    dedicated, row = ROWS[name]
    p = prediction(b=3, t=[50, 400, 950])
    torch.testing.assert_close(row.gradient(p), dedicated.gradient(p), rtol=0, atol=1e-10)
    assert {*rows_of(row.branches, "cfg")} == {*rows_of(dedicated.branches, "cfg")}


def test_csd_is_sbp_with_an_empty_source_and_dds_with_equal_latents_and_empty_sources() -> None:
    p = prediction(z=gaussian_edit().source, source=MEANS["null"])
    csd = Combination(edit_target=1, edit_null=-1).gradient(p)
    torch.testing.assert_close(SBP().gradient(p), csd, rtol=0, atol=1e-10)
    torch.testing.assert_close(DDS(W).gradient(p), W * csd, rtol=0, atol=1e-10)


def test_nfsd_changes_its_row_at_timestep_200() -> None:
    nfsd = Combination(edit_target=W, edit_null=1 - W, edit_negative={0: 0.0, 200: -1.0}, weighting="sigma2")
    p = prediction(b=3, t=[199, 200, 600])
    e = {name: p.eps[Branch("edit", name)] for name in ("target", "null", "negative")}
    below = W * (e["target"] - e["null"]) + e["null"]
    expected = weight("sigma2", p.draw) * torch.stack([below[0], *(below - e["negative"])[1:]])
    torch.testing.assert_close(nfsd.gradient(p), expected, rtol=0, atol=1e-10)


def test_displacement_and_noise_are_terms() -> None:
    p = prediction()
    row = Combination(displacement=2.0, noise=0.5)
    torch.testing.assert_close(row.gradient(p), 2 * (p.latents - p.edit.source) + 0.5 * p.draw.noise)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "every coefficient is 0"),
        ({"edit_target": "a"}, "edit_target must be a finite number"),
        ({"edit_target": float("nan")}, "edit_target must be a finite number"),
        ({"edit_target": {0: 1.0, 200: float("inf")}}, "edit_target must be a finite number"),
        ({"noise": {0: 1.0, -5: 2.0}}, "starts at 0"),
        ({"noise": {}}, "starts at 0"),
        ({"noise": {200: 1.0}}, "starts at 0"),
        ({"noise": {0: "x"}}, "must be a finite number or a mapping"),
    ],
)
def test_bad_rows_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Combination(**fields)


def test_weights() -> None:
    draw = make_draw(Gaussian(), 2, [10, 900])
    assert torch.equal(weight("uniform", draw).flatten(), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(weight("sigma2", draw).flatten(), draw.sigma**2)
    torch.testing.assert_close(weight("alpha_sigma2", draw).flatten(), draw.alpha * draw.sigma**2)


def test_patch_nce_against_cross_entropy_written_out() -> None:
    q, k = (torch.nn.functional.normalize(torch.randn(2, 6, 5, dtype=torch.float64), dim=-1) for _ in range(2))
    for row in range(2):
        losses = []
        for i in range(6):
            logits = [q[row, i] @ k[row, j] if j != i else torch.tensor(-10.0, dtype=torch.float64) for j in range(6)]
            everything = torch.stack([q[row, i] @ k[row, i], *logits]) / 0.07
            losses.append(torch.nn.functional.cross_entropy(everything[None], torch.tensor([0])))
        torch.testing.assert_close(patch_nce(q, k, 0.07)[row], torch.stack(losses).mean())


def test_predictions_are_found_by_name_whatever_their_order() -> None:
    network, edit = Gaussian(), gaussian_edit(2)
    draw = make_draw(network, 2, T)
    for branches in ((TARGET, SOURCE), (SOURCE, TARGET), (SOURCE, TARGET, SOURCE)):
        p = predict(network, edit.source, edit, draw, branches, (), progress(2))
        torch.testing.assert_close(p.eps[TARGET] - p.eps[SOURCE], (slope(p) * -3.0).expand(2, 4, 8, 8))


def test_cds_is_the_only_loss_that_needs_a_graph() -> None:
    assert CDS.graph
    assert not any(cls.graph for cls in (SDS, DDS, SBP, Combination))
