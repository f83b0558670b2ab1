"""The drawn world: deterministic, its masks exact, its captions true, its edits what they say."""

from dataclasses import replace

import numpy as np
import pytest

from sdist.tinyworld.backgrounds import PLACES
from sdist.tinyworld.captions import PHRASES, PLAIN, Wording, caption, sample_wording
from sdist.tinyworld.drawing import PALETTE
from sdist.tinyworld.edits import KINDS, sample_edit
from sdist.tinyworld.objects import ATTACHED, GROUND, NOUNS, SKY
from sdist.tinyworld.scene import SIDE, Scene, render, render_with_masks, sample_scene


def scenes(n: int) -> list[Scene]:
    return [sample_scene(np.random.default_rng((0, i))) for i in range(n)]


def test_the_world_is_rich_enough() -> None:
    assert len(GROUND) + len(SKY) >= 12
    assert len(PALETTE) >= 6
    assert set(PLACES) == set(PHRASES)
    assert len(PLACES) >= 5
    assert len(ATTACHED) >= 2


def test_a_scene_and_its_picture_are_functions_of_the_seed() -> None:
    first, again = scenes(5), scenes(5)
    assert first == again
    assert all(np.array_equal(render(a), render(b)) for a, b in zip(first, again, strict=True))
    assert len(set(first)) == 5


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_shows_its_colour_inside_its_mask(noun: str) -> None:
    host = (NOUNS[noun].hosts or (noun,))[0]
    base = next(s for s in scenes(2000) if len(s.things) == 1 and s.things[0].noun == host)
    attachment = None
    pictures = []
    for colour in ("red", "blue"):
        if noun in ATTACHED:
            from sdist.tinyworld.scene import Attachment

            attachment = Attachment(noun, colour)
        thing = replace(base.things[0], colour="white" if attachment else colour, attachment=attachment)
        image, masks = render_with_masks(replace(base, things=(thing,)))
        pictures.append(np.asarray(image, float))
        assert masks[noun].shape == (SIDE, SIDE)
        assert 0 < masks[noun].sum() < 0.5 * SIDE**2
    differs = np.abs(pictures[0] - pictures[1]).max(-1) > 30
    assert differs.any()
    assert not (differs & (masks[noun] < 0.01)).any()


def test_masks_lose_what_is_hidden() -> None:
    scene = next(s for s in scenes(500) if len(s.things) == 2)
    behind, front = scene.things
    moved = replace(behind, x=front.x, y=front.y, size=front.size, angle=front.angle)
    _, masks = render_with_masks(replace(scene, things=(replace(moved, attachment=None), replace(front, attachment=None))))
    assert (masks[behind.noun] + masks[front.noun]).max() <= 1 + 1e-6


def test_a_caption_names_what_is_there() -> None:
    for i, scene in enumerate(scenes(100)):
        wording = replace(sample_wording(np.random.default_rng(i)), colours=True, place=True)
        text = caption(scene, wording)
        for thing in scene.things:
            for part in (thing, thing.attachment):
                assert part is None or f"{part.colour} {part.noun}" in text
        assert any(phrase in text for phrase in PHRASES[scene.place])


def test_wordings_vary_the_sentence() -> None:
    scene = next(s for s in scenes(500) if len(s.things) == 2 and s.things[0].attachment is not None)
    wordings = [PLAIN, Wording(swapped=True), Wording(place_first=True), Wording("there is "), Wording(colours=False)]
    assert len({caption(scene, w) for w in wordings}) == len(wordings)


@pytest.mark.parametrize("kind", KINDS)
def test_edits_change_what_their_mask_says(kind: str) -> None:
    for index in range(4):
        pair = sample_edit(1, index, kind)
        assert pair.kind == kind
        assert pair.source != pair.target
        assert sample_edit(1, index, kind).target == pair.target
        before, after = (np.asarray(image, float) for image in (pair.source_image, pair.target_image))
        assert np.abs(before - after)[pair.mask > 0.5].mean() > 2
        if kind != "background":
            assert not np.abs(before - after)[pair.mask < 1e-3].any()


def test_all_kinds_are_sampled() -> None:
    assert {sample_edit(2, i).kind for i in range(60)} == set(KINDS) == {
        "add", "attach", "replace", "recolour", "remove", "background",
    }  # fmt: skip
