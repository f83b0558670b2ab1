"""What to say for an edit whose answer is known: an instruction in one of many natural phrasings, as InstructPix2Pix reads.

A template's fields are filled with noun phrases, whose words that name what changes are marked by MARK until they are counted.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .captions import PHRASES
from .edits import EditPair
from .objects import NOUNS
from .scene import Attachment, Scene, Thing

MARK = "*"
SEED = 7  # of the wordings of pairs on disk
WHERE = {"sky": "in the sky", "ground": "on the ground"}

ADD = (
    "add {new}", "add {new} to the {picture}", "add {new} {where}", "put {new} {where}", "put {new} in the {picture}",
    "draw {new} {where}", "draw {new}", "place {new} {where}", "insert {new}", "insert {new} {where}", "include {new}",
    "show {new} {where}", "{where} put {new}", "{where}, add {new}", "there should be {new} {where}",
    "{where} there should be {new}", "let there be {new}", "make {new} appear {where}", "{new} should appear {where}",
    "give the {picture} {new}", "i want {new} {where}",
)  # fmt: skip
ATTACH = (
    "give {host} {new}", "put {new} on {host}", "add {new} to {host}", "{host} should have {new}", "{host} needs {new}",
    "place {new} on {host}", "draw {new} on {host}", "on {host} put {new}", "let {host} have {new}", "i want {new} on {host}",
)  # fmt: skip
ATTACH_WORN = (
    "let {host} wear {new}", "make {host} wear {new}", "{host} should wear {new}", "dress {host} in {new}",
    "have {host} wear {new}", "{host} should be wearing {new}",
)  # fmt: skip
ATTACH_FLOWN = ("raise {new} on {host}", "fly {new} on {host}", "let {new} fly on {host}", "{host} should fly {new}")
REPLACE = (
    "turn {old} into {new}", "replace {old} with {new}", "replace {old} by {new}", "change {old} to {new}",
    "change {old} into {new}", "swap {old} for {new}", "make {old} into {new}", "put {new} in place of {old}",
    "{old} should be {new}", "instead of {old} draw {new}", "draw {new} instead of {old}", "i want {new} instead of {old}",
    "make {new} out of {old}", "let {old} become {new}", "exchange {old} for {new}",
)  # fmt: skip
RECOLOUR = (
    "make {old} {colour}", "paint {old} {colour}", "turn {old} {colour}", "colour {old} {colour}", "color {old} {colour}",
    "change the colour of {old} to {colour}", "change the color of {old} to {colour}", "{old} should be {colour}",
    "let {old} be {colour}", "i want {old} to be {colour}", "give {old} a {colour} colour", "change {old} to {colour}",
    "let {old} become {colour}", "paint {old} in {colour}",
)  # fmt: skip
REMOVE = (
    "remove {old}", "delete {old}", "erase {old}", "take {old} away", "take away {old}", "get rid of {old}",
    "make {old} disappear", "take {old} out of the {picture}", "remove {old} from the {picture}", "{old} should disappear",
    "there should be no {bare}", "no {bare} please", "i want {old} to be gone", "clear {old} away",
)  # fmt: skip
DETACH = (
    "take {old} off {host}", "remove {old} from {host}", "take {old} away from {host}", "remove {old} of {host}",
    "get rid of {old} on {host}", "delete {old} on {host}", "erase {old} on {host}", "{host} should have no {bare}",
    "take off {old} of {host}", "{host} should lose {old}", "make {old} on {host} disappear",
)  # fmt: skip
DETACH_WORN = ("{host} should not wear {a_bare}", "let {host} wear no {bare}", "undress {old} from {host}")
BACKGROUND = (
    "move it all to {place}", "move everything to {place}", "move the {picture} to {place}", "change the background to {place}",
    "replace the background with {place}", "replace the background by {place}", "turn the background into {place}",
    "make the background {place}", "make it {place}", "put everything {there}", "put it all {there}",
    "set the {picture} {there}", "place everything {there}", "the background should be {place}", "let it be {place}",
    "show it all {there}", "it should be {there}", "change the place to {place}", "i want {place} in the background",
    "{there} instead", "swap the background for {place}",
)  # fmt: skip
BACKGROUND_OF = {
    "night": (
        "make it {bare}", "let it be {bare}", "turn it into {bare}", "it should be {bare}", "let {bare} fall",
        "change it to {bare}",
    ),
    "snow": ("cover everything with {bare}", "let there be {bare}", "make it all {bare}"),
}  # fmt: skip
PICTURES = ("picture", "scene", "image")

_TEMPLATES = (
    *ADD, *ATTACH, *ATTACH_WORN, *ATTACH_FLOWN, *REPLACE, *RECOLOUR, *REMOVE, *DETACH, *DETACH_WORN, *BACKGROUND,
    *(template for own in BACKGROUND_OF.values() for template in own),
)  # fmt: skip
WORDS = tuple(sorted(set(re.findall(r"\w+", re.sub(r"{\w+}", " ", " ".join((*_TEMPLATES, *PICTURES, *WHERE.values())))))))


class Instruction(NamedTuple):
    """`subject` numbers the words that name what changes, by noun and colour, counting words and punctuation marks."""

    text: str
    subject: tuple[int, ...]


def instruction(pair: EditPair, rng: np.random.Generator) -> Instruction:
    """One way to ask for the edit: lower case, as unambiguous as the source picture needs."""
    return instruct(pair.kind, pair.before, pair.after, rng)


def instructions_of(pairs: Sequence[EditPair]) -> list[str]:
    """One per pair, a function of the pair and its place among them."""
    return [instruction(pair, np.random.default_rng((SEED, i))).text for i, pair in enumerate(pairs)]


def instruct(kind: str, before: Scene, after: Scene, rng: np.random.Generator) -> Instruction:
    """The same from the scenes alone."""
    templates, fields = _WORDINGS[kind](before, after, rng)
    text = str(rng.choice(templates)).format(picture=rng.choice(PICTURES), **fields)
    text += "." if rng.random() < 0.1 else ""
    words = re.findall(r"[*\w]+|[^\w\s]", text)
    return Instruction(text.replace(MARK, ""), tuple(i for i, word in enumerate(words) if word.startswith(MARK)))


Wording = tuple[tuple[str, ...], dict[str, str]]  # the templates that fit, and what fills their fields


def _add(before: Scene, after: Scene, rng: np.random.Generator) -> Wording:
    new = after.things[-1]
    return ADD, {"new": _a(new), "where": WHERE[NOUNS[new.noun].zone]}


def _attach(before: Scene, after: Scene, rng: np.random.Generator) -> Wording:
    index = _changed(before, after)
    new = after.things[index].attachment
    assert new is not None
    templates = ATTACH_FLOWN if new.noun == "flag" else ATTACH_WORN
    return ATTACH + templates, {"new": _a(new), "host": _the(before.things[index], rng, mark="")}


def _replace(before: Scene, after: Scene, rng: np.random.Generator) -> Wording:
    index = _changed(before, after)
    old, new = before.things[index], after.things[index]
    coloured = rng.random() < 0.5
    return REPLACE, {"old": _the(old, rng), "new": _a(new) if coloured else f"a {MARK}{new.noun}"}


def _recolour(before: Scene, after: Scene, rng: np.random.Generator) -> Wording:
    index = _changed(before, after)
    return RECOLOUR, {"old": _the(before.things[index], rng), "colour": MARK + after.things[index].colour}


def _remove(before: Scene, after: Scene, rng: np.random.Generator) -> Wording:
    if len(before.things) != len(after.things):
        (old,) = set(before.things) - set(after.things)
        return REMOVE, {"old": _the(old, rng), "bare": MARK + old.noun}
    host = before.things[_changed(before, after)]
    gone = host.attachment
    assert gone is not None
    unique = [t.attachment.noun for t in before.things if t.attachment is not None].count(gone.noun) == 1
    templates = DETACH + (() if gone.noun == "flag" else DETACH_WORN) + (REMOVE if unique else ())
    bare = MARK + gone.noun
    fields = {"old": _the(gone, rng), "host": _the(host, rng, mark=""), "bare": bare, "a_bare": f"a {bare}"}
    return templates, fields


def _background(before: Scene, after: Scene, rng: np.random.Generator) -> Wording:
    there, place = (re.sub(rf"\b{after.place}\b", MARK + after.place, phrase) for phrase in PHRASES[after.place])
    templates = BACKGROUND_OF.get(after.place, ())
    templates = templates if templates and rng.random() < 0.4 else BACKGROUND
    return templates, {"there": there, "place": place, "bare": MARK + after.place}


_WORDINGS = {
    "add": _add, "attach": _attach, "replace": _replace, "recolour": _recolour, "remove": _remove, "background": _background,
}  # fmt: skip


def _changed(before: Scene, after: Scene) -> int:
    return next(i for i, (a, b) in enumerate(zip(before.things, after.things, strict=True)) if a != b)


def _a(part: Thing | Attachment) -> str:
    return f"a {MARK}{part.colour} {MARK}{part.noun}"


def _the(part: Thing | Attachment, rng: np.random.Generator, mark: str = MARK) -> str:
    """A thing that is there: no two things share a noun, so its colour is told half of the time only."""
    colour = f"{mark}{part.colour} " if rng.random() < 0.5 else ""
    return f"the {colour}{mark}{part.noun}"
