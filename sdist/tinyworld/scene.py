"""A scene is a value: what stands where. Sampling, rendering and exact masks are functions of it."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .backgrounds import PLACES
from .drawing import OVERSAMPLE, PALETTE, Pen, shade
from .objects import GROUND, NOUNS, SKY, attachments_of

SIDE = 128  # pixels


@dataclass(frozen=True)
class Attachment:
    """Something worn or carried by a thing: it shares the thing's place, size and angle."""

    noun: str
    colour: str


@dataclass(frozen=True)
class Thing:
    """One object; x, y are the centre and size the side of its box, as fractions of the image; angle in degrees."""

    noun: str
    colour: str
    x: float
    y: float
    size: float
    angle: float
    flipped: bool
    seed: int  # of its shading
    attachment: Attachment | None = None


@dataclass(frozen=True)
class Scene:
    place: str
    things: tuple[Thing, ...]
    seed: int  # of the background's texture

    def with_thing(self, index: int, **changes: Any) -> "Scene":
        """The same scene with fields of one thing changed."""
        things = list(self.things)
        things[index] = replace(things[index], **changes)
        return replace(self, things=tuple(things))


class Part(NamedTuple):
    """Something drawn: a thing or an attachment, `seed` is its thing's."""

    seed: int
    noun: str
    colour: str


def sample_scene(rng: np.random.Generator, count: int | None = None) -> Scene:
    """A random scene of `count` things (drawn from 0 to 2 if not given), deterministic by the generator."""
    count = int(rng.choice(3, p=(0.06, 0.44, 0.50))) if count is None else count
    things: tuple[Thing, ...] = ()
    for _ in range(count):
        things = (*things, sample_thing(rng, things))
    return Scene(str(rng.choice(list(PLACES))), things, int(rng.integers(2**31)))


def sample_thing(rng: np.random.Generator, others: tuple[Thing, ...]) -> Thing:
    """A random thing, of a noun that is not there yet, that overlaps the others little."""
    taken = {t.noun for t in others}
    noun = str(rng.choice([n for n in (*GROUND, *SKY) if n not in taken]))
    candidates = [_place_thing(rng, noun) for _ in range(24)]
    best = min(candidates, key=lambda t: round(max((_overlap(t, o) for o in others), default=0.0), 2))
    return replace(best, attachment=sample_attachment(rng, noun) if rng.random() < 0.45 else None)


def sample_attachment(rng: np.random.Generator, host: str) -> Attachment | None:
    """Something that attaches to `host`, or None where nothing does."""
    options = attachments_of(host)
    return Attachment(str(rng.choice(options)), sample_colour(rng)) if options else None


def sample_colour(rng: np.random.Generator, other_than: str | None = None) -> str:
    return str(rng.choice([c for c in PALETTE if c != other_than]))


def _place_thing(rng: np.random.Generator, noun: str) -> Thing:
    size = rng.uniform(0.30, 0.48)
    y = rng.uniform(0.20, 0.30) if NOUNS[noun].zone == "sky" else rng.uniform(0.60, 0.96 - size / 2)
    x = rng.uniform(size / 2 + 0.01, 0.99 - size / 2)
    return Thing(
        noun=noun,
        colour=sample_colour(rng),
        x=float(x),
        y=float(y),
        size=float(size),
        angle=float(rng.uniform(-8, 8)),
        flipped=bool(rng.random() < 0.5),
        seed=int(rng.integers(2**31)),
    )


def _overlap(a: Thing, b: Thing) -> float:
    """Shared area of two boxes as a fraction of the smaller box."""
    sides = [
        max(0.0, min(p + a.size / 2, q + b.size / 2) - max(p - a.size / 2, q - b.size / 2)) for p, q in ((a.x, b.x), (a.y, b.y))
    ]
    return sides[0] * sides[1] / min(a.size, b.size) ** 2


def render(scene: Scene) -> Image.Image:
    """The scene as an RGB image of SIDE x SIDE pixels."""
    return render_parts(scene)[0]


def render_with_masks(scene: Scene) -> tuple[Image.Image, dict[str, np.ndarray]]:
    """The image, and for every noun its visible area: (SIDE, SIDE) in [0, 1], what lies behind others taken away."""
    image, parts = render_parts(scene)
    masks: dict[str, np.ndarray] = {}
    for part, mask in parts.items():
        masks[part.noun] = np.maximum(masks.get(part.noun, 0), mask)
    return image, masks


def render_parts(scene: Scene) -> tuple[Image.Image, dict[Part, np.ndarray]]:
    """The image, and the visible area of every part of it."""
    canvas = PLACES[scene.place](np.random.default_rng(scene.seed), SIDE).clip(0, 255)
    layers = _layers(scene)
    for _, pixels, alpha in layers:
        canvas = canvas * (1 - alpha) + pixels * alpha
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8)), _visible(layers)


def part_masks(scene: Scene) -> dict[Part, np.ndarray]:
    """The visible area of every part, back to front: (SIDE, SIDE) in [0, 1]."""
    return _visible(_layers(scene))


Drawn = tuple[Part, np.ndarray, np.ndarray]


def _visible(layers: list[Drawn]) -> dict[Part, np.ndarray]:
    masks: dict[Part, np.ndarray] = {}
    for part, _, alpha in layers:
        masks = {other: mask * (1 - alpha[..., 0]) for other, mask in masks.items()}
        masks[part] = alpha[..., 0]
    return masks


def _layers(scene: Scene) -> list[Drawn]:
    """Every part with its pixels and its alpha on the whole canvas, back to front."""
    return [drawn for thing in scene.things for drawn in _drawn(thing)]


@lru_cache(maxsize=16)  # the two scenes of an edit share most things
def _drawn(thing: Thing) -> tuple[Drawn, ...]:
    """Its parts, read-only."""
    drawn = tuple((part, *_placed(tile, thing)) for part, tile in _tiles(thing))
    for _, pixels, alpha in drawn:
        pixels.flags.writeable = alpha.flags.writeable = False
    return drawn


def _tiles(thing: Thing) -> list[tuple[Part, Image.Image]]:
    """RGBA tiles of the thing and of what is attached to it, back to front, at the final size."""
    layers = [(p.noun, p.colour) for p in (thing, thing.attachment) if p is not None]
    side = round(thing.size * SIDE)
    tiles = []
    for order, (noun, colour) in enumerate(layers):
        pen = Pen(side * OVERSAMPLE)
        NOUNS[noun].draw(pen, PALETTE[colour])
        tile = shade(pen.tile, np.random.default_rng((thing.seed, order)))
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if thing.flipped else tile
        tiles.append((Part(thing.seed, noun, colour), tile.rotate(thing.angle).resize((side, side), Image.Resampling.BOX)))
    return tiles


def _placed(tile: Image.Image, thing: Thing) -> tuple[np.ndarray, np.ndarray]:
    """The tile on an empty canvas: pixels (SIDE, SIDE, 3) in 0..255 and alpha (SIDE, SIDE, 1) in 0..1."""
    layer = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    corner = (round(thing.x * SIDE - tile.width / 2), round(thing.y * SIDE - tile.width / 2))
    layer.paste(tile, corner)
    array = np.asarray(layer, np.float32)
    return array[..., :3], array[..., 3:] / 255
