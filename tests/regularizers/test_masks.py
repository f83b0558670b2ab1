"""Masks: what every one of them does, where each takes its map from, and what a mask image adds."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from sdist.diffusion import Estimate
from sdist.distillation.method import Method
from sdist.errors import UserError
from sdist.losses.dds import DDS
from sdist.models.base import Backbone
from sdist.prediction import SOURCE, SOURCE_SOURCE, TARGET, Edit, Outputs, Prediction, State, predict
from sdist.regularizers.attention_mask import AttentionMask
from sdist.regularizers.difference_mask import DifferenceMask
from sdist.regularizers.mask import AveragedMask, resize, unit_range
from sdist.regularizers.source_pull import SourcePull
from sdist.regularizers.user_mask import UserMask

from ..conftest import make_draw, progress, tiny_edit

ATTENTION = AttentionMask(cross_level=1, self_level=0)
AVERAGED = pytest.mark.parametrize("mask", [ATTENTION, DifferenceMask()], ids=["attention", "difference"])


def predicted(tiny: Backbone, mask: AveragedMask, state: State, step: int, seed: int, edit: Edit | None = None) -> Prediction:
    """A draw of two images in their `step` of ten."""
    edit = edit or tiny_edit(tiny, 2)
    draw = make_draw(tiny, 2, 300, seed, dtype=torch.float32)
    with torch.no_grad():
        p = predict(tiny, edit.source, edit, draw, mask.branches, mask.hooks, progress(2, step))
    return replace(p, state=state)


def masked(tiny: Backbone, mask: AveragedMask, state: State, step: int, seed: int, edit: Edit | None = None) -> tuple:
    """The mask and the newest map of one step of two images."""
    p = predicted(tiny, mask, state, step, seed, edit)
    return mask.mask(p), mask.newest(p)


def half() -> torch.Tensor:
    """A mask image for two images, white in its upper half."""
    user = torch.zeros(2, 1, 8, 8)
    user[:, :, :4] = 1
    return user


@AVERAGED
def test_the_average_moves_and_beta_rises(tiny: Backbone, mask: AveragedMask) -> None:
    state = State(2)
    first, map0 = masked(tiny, mask, state, 0, 0)
    assert torch.equal(first, torch.ones_like(first))  # beta is 0
    second, map1 = masked(tiny, mask, state, 5, 1)
    torch.testing.assert_close(second, 0.5 * (0.9 * map0 + 0.1 * map1) + 0.5)
    assert map0.min() == 0
    assert map0.max() == 1
    assert not torch.equal(map0, map1)


def test_with_beta_1_the_average_holds_from_the_first_step(tiny: Backbone) -> None:
    mask, newest = masked(tiny, DifferenceMask(beta="1"), State(2), 0, 0)
    torch.testing.assert_close(mask, newest)


@AVERAGED
def test_released_timing_uses_the_map_of_the_step_before(tiny: Backbone, mask: AveragedMask) -> None:
    released = replace(mask, timing="previous", beta="k/(N-1)")
    state = State(2)
    first, map0 = masked(tiny, released, state, 3, 0)
    assert torch.equal(first, torch.ones_like(first))  # there is no map yet, whatever beta is
    second, map1 = masked(tiny, released, state, 9, 1)
    torch.testing.assert_close(second, map0)  # beta is 1 at the last step
    third, _ = masked(tiny, released, state, 9, 2)
    torch.testing.assert_close(third, 0.9 * map0 + 0.1 * map1)


@AVERAGED
@pytest.mark.parametrize("mode", ["multiply", "replace"])
def test_a_mask_image_holds_from_the_first_step(tiny: Backbone, mask: AveragedMask, mode: str) -> None:
    edit = replace(tiny_edit(tiny, 2), mask=half())
    mask, state = replace(mask, user_mask=mode), State(2)
    first, map0 = masked(tiny, mask, state, 0, 0, edit)
    assert torch.equal(first, half())
    later, map1 = masked(tiny, mask, state, 5, 1, edit)
    expected = half() if mode == "replace" else half() * (0.5 * (0.9 * map0 + 0.1 * map1) + 0.5)
    torch.testing.assert_close(later, expected)


@AVERAGED
def test_rows_find_their_own_image(tiny: Backbone, mask: AveragedMask) -> None:
    """The second image alone makes a step: the average of the first has not begun."""
    p = predicted(tiny, mask, State(2), 5, 0)
    mask(torch.ones(1, 4, 8, 8), p.narrow(torch.tensor([1])))
    assert p.state.tensors["known"].flatten().tolist() == [False, True]
    assert torch.equal(p.state.tensors["average"][0], torch.zeros(1, 8, 8))


def test_an_image_without_noun_is_not_masked(tiny: Backbone) -> None:
    edit = tiny_edit(tiny, 2)
    focus = edit.focus.clone()
    focus[1] = 0
    mask, _ = masked(tiny, ATTENTION, State(2), 8, 0, replace(edit, focus=focus))
    assert torch.equal(mask[1], torch.ones_like(mask[1]))
    assert mask[0].min() < 0.5


# --- refined, of both branches, cut: ViMAEdit's -------------------------------------------------------------------------

BOTH = replace(ATTENTION, maps="both")


def both_edit(tiny: Backbone, target: Sequence[int], source: Sequence[int]) -> Edit:
    """Two images whose words stand in the first tokens of the prompts, or nowhere."""
    edit = tiny_edit(tiny, 2)
    rows = torch.zeros(2, 2, tiny.text.length)
    for focus, which in zip(rows, (target, source), strict=True):
        focus[list(which), 1:3] = 1
    return replace(edit, focus=rows[0], source_focus=rows[1])


def test_both_branches_maps_are_scaled_and_the_larger_counts(tiny: Backbone) -> None:
    """As the grounding of two-branch editors has them (sdist/denoising/grounding.py), but for its kind of resizing."""
    edit = both_edit(tiny, [0, 1], [0, 1])
    p = predicted(tiny, BOTH, State(2), 0, 0, edit)
    each = [
        unit_range(resize(p.recorded[hook].refined(focus), p.latents))
        for hook, focus in zip(BOTH.hooks, (edit.focus, edit.source_focus), strict=True)
    ]
    assert not torch.equal(*each)
    assert torch.equal(BOTH.newest(p), torch.maximum(*each))
    assert [hook.branch for hook in BOTH.hooks] == [TARGET, SOURCE_SOURCE]


def test_a_branch_without_words_has_no_map(tiny: Backbone) -> None:
    """The first image has words in the source alone, the second in neither."""
    p = predicted(tiny, BOTH, State(2), 0, 0, both_edit(tiny, [], [0]))
    source = unit_range(resize(p.recorded[BOTH.hooks[1]].refined(p.edit.source_focus), p.latents))
    assert torch.equal(BOTH.newest(p)[0], source[0])
    assert not BOTH.newest(p)[1].any()
    assert BOTH.applies(p).tolist() == [True, False]
    last = p.narrow(torch.tensor([0]))
    torch.testing.assert_close(BOTH.newest(last), source[:1])
    assert ATTENTION.applies(p).tolist() == [False, False]


def test_a_threshold_cuts_the_map(tiny: Backbone) -> None:
    p = predicted(tiny, ATTENTION, State(2), 0, 0)
    whole = ATTENTION.newest(p)
    assert torch.equal(replace(ATTENTION, threshold=0.4).newest(p), (whole > 0.4).float())
    for wrong in (-0.1, 1):
        with pytest.raises(UserError, match=f"threshold of a mask must be within 0..1, not 1, got {wrong}"):
            replace(ATTENTION, threshold=wrong)


def test_a_constant_map_becomes_zero() -> None:
    assert torch.equal(unit_range(torch.full((1, 1, 4, 4), 3.0)), torch.zeros(1, 1, 4, 4))


def test_a_map_is_resized_to_the_latents() -> None:
    assert resize(torch.rand(2, 1, 4, 2), torch.zeros(2, 4, 8, 6)).shape == (2, 1, 8, 6)


@pytest.mark.parametrize("momentum", [0, 1.1])
def test_a_momentum_that_forgets_nothing_or_more_than_all_is_refused(momentum: float) -> None:
    with pytest.raises(UserError, match="momentum of a mask"):
        DifferenceMask(momentum=momentum)


# --- where the prompts' predictions differ -----------------------------------------------------------------------------


def differing(p: Prediction, difference: torch.Tensor) -> Prediction:
    """The same with predictions of such a difference."""
    given = {TARGET: difference, SOURCE: torch.zeros_like(difference)}
    one = torch.ones(len(difference))
    return replace(p, outputs=Outputs({b: Estimate(eps, p.latents, one, one, "epsilon") for b, eps in given.items()}, {}))


@pytest.fixture
def p(tiny: Backbone) -> Prediction:
    return predicted(tiny, DifferenceMask(), State(2), 0, 0)


def test_the_mask_is_where_the_predictions_differ(p: Prediction) -> None:
    """A difference of 2 in one quarter of the pixels, in two channels with opposite signs."""
    difference = torch.zeros_like(p.latents)
    difference[:, 0, :4, :4], difference[:, 1, :4, :4] = 2, -2
    quarter = (difference[:, :1] != 0).float()
    torch.testing.assert_close(DifferenceMask().newest(differing(p, difference)), quarter)
    assert torch.equal(DifferenceMask(form="signed").newest(differing(p, difference)), torch.zeros_like(quarter))  # they cancel
    opposite = DifferenceMask(form="signed").newest(differing(p, -2 * difference[:, :1].expand_as(difference)))
    torch.testing.assert_close(opposite, 1 - quarter)


def test_the_scale_of_the_difference_does_not_matter(p: Prediction) -> None:
    """So noise predictions and velocities, whose differences differ by a factor per image, make the same mask."""
    difference = torch.randn(p.latents.shape, generator=torch.Generator().manual_seed(1))
    factor = torch.tensor([7, 0.3])[:, None, None, None]
    for mask in (DifferenceMask(), DifferenceMask(form="signed")):
        plain, scaled = mask.newest(differing(p, difference)), mask.newest(differing(p, factor * difference))
        torch.testing.assert_close(plain, scaled, rtol=1e-3, atol=1e-5)


def test_an_outlier_does_not_hide_the_rest(p: Prediction) -> None:
    difference = torch.zeros_like(p.latents)
    difference[..., :4, :], difference[..., 0, 0] = 1, 1000
    mask = DifferenceMask().newest(differing(p, difference))
    assert mask.max() == 1
    assert mask[..., 1, 1].min() > 0.02  # 1 of three times a mean of about 16, where it would be 1 of 1000


# --- the user's mask ---------------------------------------------------------------------------------------------------


def test_the_users_mask_alone(p: Prediction) -> None:
    p = replace(p, state=State(2))
    ones = torch.ones_like(p.latents)
    assert torch.equal(UserMask()(ones, p), ones)
    alone = replace(p, edit=replace(p.edit, mask=half()))
    assert torch.equal(UserMask()(ones, alone), half() * ones)
    torch.testing.assert_close(UserMask().diagnostics(alone)["mask_coverage"], torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("kind", ["multiply", "replace"])
def test_an_image_without_a_mask_of_its_own_is_masked_as_it_would_be_alone(tiny: Backbone, kind: str) -> None:
    """In one batch with an image that has one."""
    mask = DifferenceMask(user_mask=kind)
    whole = predicted(tiny, mask, State(2), 1, 5)
    mixed = torch.cat([half()[:1], torch.ones_like(half()[:1])])
    shown = replace(whole, edit=replace(whole.edit, mask=mixed, masked=torch.tensor([True, False])), state=State(2))
    own, others = mask.mask(shown), mask.mask(replace(whole, state=State(2)))
    assert torch.equal(own[1:], others[1:])
    assert torch.equal(own[:1], half()[:1] * (1 if kind == "replace" else others[:1]))


def test_a_method_without_a_mask_gets_the_users_in_front() -> None:
    method = Method(DDS(), {"source_pull": SourcePull()})
    assert list(method.with_user_mask().regularizers) == ["user_mask", "source_pull"]
    own = Method(DDS(), {"source_pull": SourcePull(), "difference_mask": DifferenceMask()})
    assert own.with_user_mask() is own


def test_a_method_has_one_mask() -> None:
    assert Method(DDS(), {"source_pull": SourcePull(), "user_mask": UserMask()}).mask == "user_mask"
    assert Method(DDS(), {"source_pull": SourcePull()}).mask is None
    with pytest.raises(UserError, match="attention_mask and user_mask are masks, a method has one"):
        Method(DDS(), {"attention_mask": ATTENTION, "user_mask": UserMask()})


def test_what_a_method_reads_and_asks_of_the_network() -> None:
    assert Method(DDS(), {"attention_mask": ATTENTION}).reads == {"words", "mask"}
    assert Method(DDS(), {"difference_mask": DifferenceMask()}).reads == {"mask"}
    assert Method(DDS()).reads == frozenset()
    assert SOURCE in Method(DDS(), {"difference_mask": DifferenceMask()}).branches
    assert SOURCE not in Method(DDS()).branches
