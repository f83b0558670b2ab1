"""Instructions say what their edit does, and nothing that would fit another."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from sdist.tinyworld.edits import KINDS, sample_edit
from sdist.tinyworld.instructions import PICTURES, WORDS, Instruction, instruct, instruction
from sdist.tinyworld.objects import NOUNS
from sdist.tinyworld.scene import Attachment, Scene, sample_scene


def told(kind: str, count: int = 150) -> list[tuple[Scene, Scene, Instruction]]:
    """Edits of a kind, unrendered, with their instructions."""
    found = []
    for i in range(count):
        rng = np.random.default_rng((11, i))
        before = sample_scene(rng)
        after = KINDS[kind](rng, before)
        if after is not None:
            found.append((before, after, instruct(kind, before, after, rng)))
    return found


def words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


def changed(before: Scene, after: Scene) -> set[str]:
    """Nouns and colours of the parts that only one of the scenes has; of the place, if it changes."""
    a, b = ({(p.noun, p.colour) for t in s.things for p in (t, t.attachment) if p is not None} for s in (before, after))
    parts = {word for pair in a ^ b for word in pair}
    return parts or {after.place}


@pytest.mark.parametrize("kind", KINDS)
def test_an_instruction_names_what_changes(kind: str) -> None:
    for before, after, (text, subject) in told(kind):
        named = {words(text)[i] for i in subject}
        assert named
        assert named <= changed(before, after)
        assert not set("*{}") & set(text)


@pytest.mark.parametrize("kind", KINDS)
def test_phrasings_vary(kind: str) -> None:
    openings = Counter(words(text)[0] for _, _, (text, _) in told(kind))
    assert len(openings) >= 8
    assert max(openings.values()) < sum(openings.values()) / 2


def test_the_new_noun_and_the_new_colour_are_always_told() -> None:
    for kind in ("add", "attach"):
        for before, after, (text, subject) in told(kind):
            assert {words(text)[i] for i in subject} == changed(before, after)
    for before, after, (text, _) in told("replace"):
        (new,) = {t.noun for t in after.things} - {t.noun for t in before.things}
        assert new in words(text)
    for before, after, (text, _) in told("recolour"):
        (new,) = [t.colour for s, t in zip(before.things, after.things, strict=True) if s != t]
        assert new in words(text)


def test_where_something_stands_is_told_truly() -> None:
    seen = set()
    for _, after, (text, _) in told("add"):
        for zone, where in (("sky", "in the sky"), ("ground", "on the ground")):
            if where in text:
                assert NOUNS[after.things[-1].noun].zone == zone
                seen.add(zone)
    assert seen == {"sky", "ground"}


def test_of_two_hats_the_one_is_meant_whose_owner_is_told() -> None:
    rng = np.random.default_rng(0)
    scene = next(s for s in (sample_scene(rng, 2) for _ in range(5000)) if {t.noun for t in s.things} == {"cat", "snowman"})
    before = replace(scene, things=tuple(replace(t, attachment=Attachment("hat", "red")) for t in scene.things))
    after = before.with_thing(0, attachment=None)
    for _ in range(60):
        assert before.things[0].noun in words(instruct("remove", before, after, rng).text)


def test_instructions_never_tell_left_from_right() -> None:
    """Training mirrors the pictures."""
    assert not {"left", "right"} & set(WORDS)


def test_words_are_those_of_the_templates() -> None:
    known = set(WORDS) | set(NOUNS) | {word for kind in KINDS for a, b, _ in told(kind, 60) for word in changed(a, b)}
    known |= {"a", "field", "of", "snow", "in", "on", "at", "night", "scene", "beach", "desert", "meadow", ".", ","}
    spoken = {word for kind in KINDS for _, _, (text, _) in told(kind) for word in words(text)}
    assert spoken <= known
    assert set(PICTURES) <= set(WORDS)


def test_the_same_generator_gives_the_same_words() -> None:
    pair = sample_edit(3, 1, "recolour")
    first, second = (instruction(pair, np.random.default_rng(5)) for _ in range(2))
    assert first == second
    assert len({instruction(pair, np.random.default_rng(i)).text for i in range(20)}) > 8
