"""Captions of scenes: a Wording fixes the structure of the sentence, so that two scenes can be told alike."""

from dataclasses import dataclass

import numpy as np

from .drawing import PALETTE
from .objects import NOUNS
from .scene import Scene, Thing

# place -> (adverbial, noun phrase)
PHRASES: dict[str, tuple[str, str]] = {
    "meadow": ("in a meadow", "a meadow"),
    "beach": ("on a beach", "a beach"),
    "snow": ("in the snow", "a field of snow"),
    "desert": ("in a desert", "a desert"),
    "night": ("at night", "a night scene"),
}
OPENINGS = ("", "", "", "a picture of ", "a drawing of ", "there is ")
WEARING = ("wearing", "with")


@dataclass(frozen=True)
class Wording:
    """The choices that a caption leaves open."""

    opening: str = ""
    place_first: bool = False  # "a meadow with a red house" instead of "a red house in a meadow"
    swapped: bool = False  # the second thing is named first
    wearing: str = "wearing"  # how a hat or scarf is told; a flag is always "with"
    colours: bool = True
    place: bool = True


PLAIN = Wording()


def sample_wording(rng: np.random.Generator) -> Wording:
    return Wording(
        opening=str(rng.choice(OPENINGS)),
        place_first=bool(rng.random() < 0.25),
        swapped=bool(rng.random() < 0.5),
        wearing=str(rng.choice(WEARING)),
        colours=bool(rng.random() < 0.92),
        place=bool(rng.random() < 0.92),
    )


def caption(scene: Scene, wording: Wording = PLAIN) -> str:
    """One sentence that names everything in the scene, in the given wording; lower case, no full stop."""
    things = list(reversed(scene.things)) if wording.swapped else list(scene.things)
    named = " and ".join(_thing(t, wording) for t in things)
    adverbial, noun_phrase = PHRASES[scene.place]
    if not named:
        return _opened(noun_phrase, wording)
    if wording.place_first and wording.place:
        return _opened(f"{noun_phrase} with {named}", wording)
    return _opened(f"{named} {adverbial}" if wording.place else named, wording)


def _opened(sentence: str, wording: Wording) -> str:
    return wording.opening + sentence


def _thing(thing: Thing, wording: Wording) -> str:
    words = _coloured(thing.noun, thing.colour, wording)
    if thing.attachment is None:
        return words
    verb = "with" if thing.attachment.noun == "flag" else wording.wearing
    return f"{words} {verb} {_coloured(thing.attachment.noun, thing.attachment.colour, wording)}"


def _coloured(noun: str, colour: str, wording: Wording) -> str:
    return f"a {colour} {noun}" if wording.colours else f"a {noun}"


def vocabulary() -> list[str]:
    """Every word that a caption can have, which is all that a model trained on captions knows; weights/words.txt lists them."""
    phrases = [*OPENINGS, *WEARING, *(text for both in PHRASES.values() for text in both), "a", "and", "with"]
    return sorted({*NOUNS, *PALETTE, *" ".join(phrases).split()})
