"""Regularizers, filters, normalizers and gammas, each by itself."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdist.errors import UserError
from sdist.filters import StdThreshold
from sdist.gammas import Constant, Cosine, Linear, ReverseSigmoid
from sdist.models.backbone import Backbone
from sdist.normalizers import UnitStd
from sdist.prediction import Edit, Prediction, Progress, predict
from sdist.regularizers.attention_mask import AttentionMask, resize, unit_range
from sdist.regularizers.base import Memory
from sdist.regularizers.source_pull import SourcePull

from .conftest import Gaussian, gaussian_edit, make_draw, progress, tiny_edit


def latents(seed: int, b: int = 2) -> torch.Tensor:
    return torch.randn(b, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


# --- filter ------------------------------------------------------------------------------------------------------------


@given(st.floats(0.001, 2), st.integers(0, 300))
def test_a_rejected_gradient_is_accepted_sooner_or_later_and_stays_accepted(size: float, attempt: int) -> None:
    accept, gradient = StdThreshold(threshold=1.0), latents(0, 1) * size
    now, later = (bool(accept.accept(gradient, torch.tensor([a]))) for a in (attempt, attempt + 1))
    assert later or not now
    assert bool(accept.accept(gradient, torch.tensor([2000])))


def test_the_threshold_decays_with_every_attempt_and_images_are_judged_apart() -> None:
    accept = StdThreshold(threshold=0.5, decay=0.9)
    torch.testing.assert_close(accept.threshold_at(torch.tensor([0, 3])), torch.tensor([0.5, 0.5 * 0.9**3]))
    gradient = torch.cat([latents(0, 1) * 0.46, latents(1, 1) * 0.46])
    assert accept.accept(gradient, torch.tensor([0, 3])).tolist() == [False, True]


@pytest.mark.parametrize("fields", [{"threshold": -1}, {"decay": 0}, {"decay": 1.1}, {"max_attempts": 0}])
def test_bad_filters_are_refused(fields: dict) -> None:
    with pytest.raises(UserError):
        StdThreshold(**fields)


# --- normalizer --------------------------------------------------------------------------------------------------------


@given(st.floats(1e-3, 1e3))
def test_unit_std_forgets_the_scale_of_each_image(scale: float) -> None:
    gradient = latents(0)
    normal = UnitStd()(torch.cat([gradient[:1] * scale, gradient[1:]]))
    torch.testing.assert_close(normal, UnitStd()(gradient), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(normal.flatten(1).std(dim=1), torch.ones(2))


def test_a_constant_gradient_stays_finite() -> None:
    assert torch.equal(UnitStd()(torch.zeros(1, 4, 8, 8)), torch.zeros(1, 4, 8, 8))
    assert UnitStd()(torch.ones(1, 4, 8, 8)).isfinite().all()


# --- gammas ------------------------------------------------------------------------------------------------------------


def test_gammas_go_from_high_to_low() -> None:
    progress_ = torch.linspace(0, 1, 300)
    for gamma in (Linear(), Cosine(), ReverseSigmoid()):
        values = gamma(progress_)
        assert (values.diff() <= 1e-9).all()
        assert values[0] <= 0.15
        assert values[-1] >= 0.01 - 1e-6
    assert torch.equal(Constant(2.0)(progress_), torch.full((300,), 2.0))


def test_reverse_sigmoid_has_the_released_values() -> None:
    values = ReverseSigmoid()(torch.linspace(0, 1, 300))
    written_out = (1 - torch.sigmoid(torch.linspace(-5, 5, 300))) * 0.14 + 0.01
    torch.testing.assert_close(values, written_out)
    torch.testing.assert_close(values[[0, -1]], torch.tensor([0.1491, 0.0109]), rtol=0, atol=5e-5)


# --- source pull -------------------------------------------------------------------------------------------------------


def test_source_pull() -> None:
    network, edit = Gaussian(), gaussian_edit(2)
    z = edit.source + 1.5
    p = predict(network, z, edit, make_draw(network, 2, 300), [*_target()], (), progress(2))
    gradient = latents(0).double()
    assert torch.equal(SourcePull(0.0)(gradient, p, Memory(2)), gradient)
    torch.testing.assert_close(SourcePull(0.25)(gradient, p, Memory(2)), 0.75 * gradient + 0.25 * 1.5)
    with pytest.raises(UserError, match="within"):
        SourcePull(1.5)


# --- attention mask ----------------------------------------------------------------------------------------------------


def _target():
    from sdist.prediction import TARGET

    return (TARGET,)


def masked(tiny: Backbone, mask: AttentionMask, memory: Memory, step: int, seed: int, edit: Edit | None = None) -> tuple:
    """The mask and the newest raw map of one step of two images."""
    edit = edit or tiny_edit(tiny, 2)
    draw = make_draw(tiny, 2, 300, seed, dtype=torch.float32)
    with torch.no_grad():
        p = predict(tiny, edit.source, edit, draw, _target(), mask.recorders, progress(2, step))
        raw = unit_range(resize(p.recorded[mask.recorders[0]].refined(edit.focus), p.latents))
        return mask.mask(p, memory), raw


MASK = AttentionMask(cross_level=1, self_level=0)


def test_the_average_moves_and_beta_rises(tiny: Backbone) -> None:
    memory = Memory(2)
    first, raw0 = masked(tiny, MASK, memory, 0, 0)
    assert torch.equal(first, torch.ones_like(first))  # beta is 0
    second, raw1 = masked(tiny, MASK, memory, 5, 1)
    average = 0.9 * raw0 + 0.1 * raw1
    torch.testing.assert_close(second, 0.5 * average + 0.5)
    assert raw0.min() == 0
    assert raw0.max() == 1
    assert not torch.equal(raw0, raw1)


def test_released_timing_uses_the_attention_of_the_step_before(tiny: Backbone) -> None:
    released = AttentionMask(cross_level=1, self_level=0, timing="previous", beta="k/(N-1)")
    memory = Memory(2)
    first, raw0 = masked(tiny, released, memory, 3, 0)
    assert torch.equal(first, torch.ones_like(first))  # nothing recorded yet, whatever beta is
    second, raw1 = masked(tiny, released, memory, 9, 1)
    torch.testing.assert_close(second, raw0)  # beta is 1 at the last step
    third, _ = masked(tiny, released, memory, 9, 2)
    torch.testing.assert_close(third, 0.9 * raw0 + 0.1 * raw1)


def test_an_image_without_noun_is_not_masked(tiny: Backbone) -> None:
    edit = tiny_edit(tiny, 2)
    focus = edit.focus.clone()
    focus[1] = 0
    edit = Edit(edit.source, edit.text, focus)
    mask, _ = masked(tiny, MASK, Memory(2), 8, 0, edit)
    assert torch.equal(mask[1], torch.ones_like(mask[1]))
    assert mask[0].min() < 0.5


@pytest.mark.parametrize("mode", ["multiply", "replace"])
def test_a_user_mask_holds_from_the_first_step(tiny: Backbone, mode: str) -> None:
    edit = tiny_edit(tiny, 2)
    user = torch.zeros(2, 1, 8, 8)
    user[:, :, :4] = 1
    edit = Edit(edit.source, edit.text, edit.focus, user)
    mask = AttentionMask(cross_level=1, self_level=0, user_mask=mode)
    memory = Memory(2)
    first, raw0 = masked(tiny, mask, memory, 0, 0, edit)
    assert torch.equal(first, user)
    later, raw1 = masked(tiny, mask, memory, 5, 1, edit)
    expected = user if mode == "replace" else user * (0.5 * (0.9 * raw0 + 0.1 * raw1) + 0.5)
    torch.testing.assert_close(later, expected)


def test_rows_find_their_own_slot(tiny: Backbone) -> None:
    """The second image steps alone, then both: the average of the first starts only then."""
    memory, edit = Memory(2), tiny_edit(tiny, 2)
    draw = make_draw(tiny, 2, 300, dtype=torch.float32)
    with torch.no_grad():
        where = Progress(torch.arange(2), torch.tensor([5, 5]), 10)
        p: Prediction = predict(tiny, edit.source, edit, draw, _target(), MASK.recorders, where)
        MASK(latents(0), p.narrow(torch.tensor([1])), memory)
    assert memory.tensors["known"].flatten().tolist() == [False, True]
    assert torch.equal(memory.tensors["average"][0], torch.zeros(1, 8, 8))


def test_a_constant_map_becomes_zero() -> None:
    assert torch.equal(unit_range(torch.full((1, 1, 4, 4), 3.0)), torch.zeros(1, 1, 4, 4))
