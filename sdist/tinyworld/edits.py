"""Edit pairs: a scene, a changed scene, both prompts in one wording, both renders, and the mask of the change."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from .backgrounds import PLACES
from .captions import Wording, caption, sample_wording
from .objects import NOUNS, attachments_of
from .scene import SIDE, Part, Scene, render_parts, sample_attachment, sample_colour, sample_scene, sample_thing


@dataclass(frozen=True)
class EditPair:
    """An edit whose answer is known. `mask` is (SIDE, SIDE) in [0, 1]: where the two scenes differ in what is drawn."""

    kind: str
    before: Scene
    after: Scene
    source: str
    target: str
    source_image: Image.Image
    target_image: Image.Image
    mask: np.ndarray


Change = Callable[[np.random.Generator, Scene], Scene | None]  # None: this scene does not allow it
KINDS: dict[str, Change] = {}


def _kind(change: Change) -> Change:
    KINDS[change.__name__.removesuffix("_thing")] = change
    return change


@_kind
def add(rng: np.random.Generator, scene: Scene) -> Scene | None:
    """One more thing, the second at most."""
    if len(scene.things) > 1:
        return None
    return replace(scene, things=(*scene.things, replace(sample_thing(rng, scene.things), attachment=None)))


@_kind
def attach(rng: np.random.Generator, scene: Scene) -> Scene | None:
    """Something that a thing wears or carries."""
    free = [i for i, t in enumerate(scene.things) if t.attachment is None and attachments_of(t.noun)]
    if not free:
        return None
    index = int(rng.choice(free))
    return scene.with_thing(index, attachment=sample_attachment(rng, scene.things[index].noun))


@_kind
def replace_thing(rng: np.random.Generator, scene: Scene) -> Scene | None:
    """Another noun of the same zone in the same place and colour."""
    plain = [i for i, t in enumerate(scene.things) if t.attachment is None]
    if not plain:
        return None
    index = int(rng.choice(plain))
    taken, zone = {t.noun for t in scene.things}, NOUNS[scene.things[index].noun].zone
    noun = str(rng.choice([n.name for n in NOUNS.values() if n.zone == zone and n.name not in taken]))
    return scene.with_thing(index, noun=noun)


@_kind
def recolour(rng: np.random.Generator, scene: Scene) -> Scene | None:
    """Another colour of one thing."""
    if not scene.things:
        return None
    index = int(rng.integers(len(scene.things)))
    return scene.with_thing(index, colour=sample_colour(rng, other_than=scene.things[index].colour))


@_kind
def remove(rng: np.random.Generator, scene: Scene) -> Scene | None:
    """One thing, or what is attached to it, is gone."""
    if not scene.things:
        return None
    index = int(rng.integers(len(scene.things)))
    if scene.things[index].attachment is not None:
        return scene.with_thing(index, attachment=None)
    return replace(scene, things=scene.things[:index] + scene.things[index + 1 :])


@_kind
def background(rng: np.random.Generator, scene: Scene) -> Scene | None:
    """Another place."""
    return replace(scene, place=str(rng.choice([p for p in PLACES if p != scene.place])))


def sample_edit(seed: int, index: int, kind: str | None = None) -> EditPair:
    """The edit pair of that number, of the given kind or of any; the same arguments give the same pair."""
    rng = np.random.default_rng((seed, index))
    kind = kind or str(rng.choice(list(KINDS)))
    while True:  # ends: every kind applies to many scenes
        before = sample_scene(rng)
        after = KINDS[kind](rng, before)
        if after is not None:
            return make_pair(kind, before, after, replace(sample_wording(rng), colours=True, place=True))


def make_pair(kind: str, before: Scene, after: Scene, wording: Wording) -> EditPair:
    """Renders and captions both scenes."""
    (source_image, old), (target_image, new) = render_parts(before), render_parts(after)
    mask = changed_area(old, new)
    return EditPair(kind, before, after, caption(before, wording), caption(after, wording), source_image, target_image, mask)


def changed_area(old: dict[Part, np.ndarray], new: dict[Part, np.ndarray]) -> np.ndarray:
    """The mask of an edit from the parts of both scenes; where all parts stay, the place has changed."""
    changed = old.keys() ^ new.keys()
    if not changed:
        return 1 - np.maximum.reduce([*new.values(), np.zeros((SIDE, SIDE))])
    return np.maximum.reduce([area for parts in (old, new) for part, area in parts.items() if part in changed])


def write_pairs(folder: Path, pairs: list[EditPair], instructions: Sequence[str]) -> None:
    """The pairs in the format that `sdist run` reads, index.csv (with the kinds) and images/, with the targets in truths/.

    In masks/ stands where each edit may happen, but for additions, which may stand anywhere. `instructions`: what to do, one per
    pair (see instructions.py).
    """
    for name in ("images", "truths", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = [["img_path", "source_prompt", "target_prompt", "category", "instruction"]]
    for i, (pair, instruction) in enumerate(zip(pairs, instructions, strict=True)):
        pair.source_image.save(folder / "images" / f"{i:03d}.png")
        pair.target_image.save(folder / "truths" / f"{i:03d}.png")
        if pair.kind != "add":
            allowed_area(pair).save(folder / "masks" / f"{i:03d}.png")
        rows.append([f"{i:03d}.png", pair.source, pair.target, pair.kind, instruction])
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def allowed_area(pair: EditPair) -> Image.Image:
    """White where the edit may happen: the mask of the change, dilated by 4 pixels."""
    return Image.fromarray((pair.mask > 0.1).astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(9))
