"""The nouns of tinyworld: one drawing function a noun, named as the noun; decorators say where it may stand."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from .drawing import BROWN, CREAM, DARK, GLASS, PALETTE, Colour, Pen, tone

Drawing = Callable[[Pen, Colour], None]


@dataclass(frozen=True)
class Noun:
    """A drawable thing: `zone` is where it is placed; `hosts` are the nouns that it attaches to, if any."""

    name: str
    zone: str  # "ground", "sky" or "attached"
    draw: Drawing
    hosts: tuple[str, ...] = ()


NOUNS: dict[str, Noun] = {}


def _noun(zone: str, hosts: tuple[str, ...] = ()) -> Callable[[Drawing], Drawing]:
    def register(draw: Drawing) -> Drawing:
        NOUNS[draw.__name__] = Noun(draw.__name__, zone, draw, hosts)
        return draw

    return register


@_noun("ground")
def house(pen: Pen, colour: Colour) -> None:
    pen.rectangle(0.14, 0.48, 0.86, 0.98, colour)
    pen.polygon((0.03, 0.50), (0.5, 0.16), (0.97, 0.50), colour=(96, 66, 62))
    pen.rectangle(0.42, 0.68, 0.60, 0.98, DARK)
    pen.rectangle(0.20, 0.58, 0.36, 0.72, (250, 236, 160))
    pen.rectangle(0.66, 0.58, 0.80, 0.72, (250, 236, 160))


@_noun("ground")
def tree(pen: Pen, colour: Colour) -> None:
    pen.rectangle(0.43, 0.60, 0.57, 0.99, BROWN)
    for x, y, radius in ((0.30, 0.46, 0.22), (0.70, 0.46, 0.22), (0.5, 0.30, 0.27), (0.5, 0.54, 0.20)):
        pen.disc(x, y, radius, colour)
    pen.disc(0.42, 0.26, 0.11, tone(colour, 1.15))


@_noun("ground")
def boat(pen: Pen, colour: Colour) -> None:
    pen.rectangle(0.46, 0.16, 0.51, 0.72, BROWN)
    pen.polygon((0.54, 0.20), (0.90, 0.64), (0.54, 0.64), colour=CREAM)
    pen.polygon((0.43, 0.30), (0.43, 0.64), (0.14, 0.64), colour=CREAM)
    pen.polygon((0.02, 0.68), (0.98, 0.68), (0.80, 0.95), (0.20, 0.95), colour=colour)
    pen.polygon((0.02, 0.68), (0.98, 0.68), (0.96, 0.74), (0.05, 0.74), colour=tone(colour, 0.75))


@_noun("ground")
def car(pen: Pen, colour: Colour) -> None:
    pen.polygon((0.20, 0.58), (0.32, 0.34), (0.70, 0.34), (0.84, 0.58), colour=colour)
    pen.polygon((0.28, 0.56), (0.36, 0.40), (0.49, 0.40), (0.49, 0.56), colour=GLASS)
    pen.polygon((0.53, 0.56), (0.53, 0.40), (0.67, 0.40), (0.76, 0.56), colour=GLASS)
    pen.rectangle(0.02, 0.55, 0.98, 0.82, colour, corner=0.09)
    for x in (0.25, 0.75):
        pen.disc(x, 0.82, 0.13, DARK)
        pen.disc(x, 0.82, 0.055, (190, 190, 196))


@_noun("sky")
def sun(pen: Pen, colour: Colour) -> None:
    for k in range(10):
        a, half = 2 * math.pi * k / 10, 0.13
        tip = (0.5 + 0.49 * math.cos(a), 0.5 + 0.49 * math.sin(a))
        base = [(0.5 + 0.3 * math.cos(a + s), 0.5 + 0.3 * math.sin(a + s)) for s in (-2 * half, 2 * half)]
        pen.polygon(tip, *base, colour=tone(colour, 0.9))
    pen.disc(0.5, 0.5, 0.30, colour)


@_noun("sky")
def moon(pen: Pen, colour: Colour) -> None:
    pen.disc(0.48, 0.5, 0.42, colour)
    pen.erase(0.68, 0.42, 0.34)


@_noun("sky")
def balloon(pen: Pen, colour: Colour) -> None:
    pen.line((0.5, 0.70), (0.45, 0.85), (0.53, 0.99), width=0.03, colour=DARK)
    pen.ellipse(0.18, 0.03, 0.82, 0.72, colour)
    pen.polygon((0.5, 0.68), (0.42, 0.78), (0.58, 0.78), colour=tone(colour, 0.8))
    pen.ellipse(0.30, 0.14, 0.44, 0.32, tone(colour, 1.3))


@_noun("ground")
def cat(pen: Pen, colour: Colour) -> None:
    pen.line((0.74, 0.90), (0.92, 0.80), (0.90, 0.56), width=0.09, colour=tone(colour, 0.85))
    pen.ellipse(0.24, 0.52, 0.78, 1.0, colour)
    pen.polygon((0.24, 0.44), (0.25, 0.16), (0.45, 0.30), colour=tone(colour, 0.85))
    pen.polygon((0.76, 0.44), (0.75, 0.16), (0.55, 0.30), colour=tone(colour, 0.85))
    pen.ellipse(0.22, 0.25, 0.78, 0.66, colour)
    for x in (0.38, 0.62):
        pen.disc(x, 0.42, 0.05, DARK)
    pen.polygon((0.46, 0.50), (0.54, 0.50), (0.5, 0.56), colour=(226, 130, 140))


@_noun("ground")
def snowman(pen: Pen, colour: Colour) -> None:
    pen.disc(0.5, 0.77, 0.23, tone(colour, 0.92))
    pen.disc(0.5, 0.52, 0.17, colour)
    pen.disc(0.5, 0.31, 0.13, colour)
    pen.line((0.34, 0.54), (0.14, 0.42), width=0.03, colour=BROWN)
    pen.line((0.66, 0.54), (0.86, 0.42), width=0.03, colour=BROWN)
    pen.disc(0.45, 0.28, 0.022, DARK)
    pen.disc(0.55, 0.28, 0.022, DARK)
    pen.polygon((0.48, 0.31), (0.48, 0.36), (0.64, 0.35), colour=(238, 138, 40))


@_noun("ground")
def flower(pen: Pen, colour: Colour) -> None:
    pen.rectangle(0.47, 0.45, 0.53, 0.99, (58, 128, 52))
    pen.ellipse(0.53, 0.68, 0.78, 0.80, (72, 146, 62))
    pen.ellipse(0.22, 0.76, 0.47, 0.88, (72, 146, 62))
    for k in range(6):
        a = 2 * math.pi * k / 6
        pen.disc(0.5 + 0.2 * math.cos(a), 0.32 + 0.2 * math.sin(a), 0.125, colour)
    pen.disc(0.5, 0.32, 0.11, (216, 150, 46) if colour == PALETTE["yellow"] else (246, 214, 90))


@_noun("ground")
def fish(pen: Pen, colour: Colour) -> None:
    pen.polygon((0.66, 0.55), (0.98, 0.32), (0.98, 0.80), colour=tone(colour, 0.8))
    pen.polygon((0.34, 0.40), (0.58, 0.18), (0.62, 0.42), colour=tone(colour, 0.8))
    pen.ellipse(0.02, 0.32, 0.78, 0.80, colour)
    pen.disc(0.20, 0.50, 0.075, (250, 250, 250))
    pen.disc(0.19, 0.50, 0.04, DARK)
    pen.ellipse(0.40, 0.52, 0.60, 0.66, tone(colour, 0.8))


@_noun("ground")
def mushroom(pen: Pen, colour: Colour) -> None:
    pen.rectangle(0.38, 0.50, 0.62, 0.98, CREAM, corner=0.08)
    pen.polygon(*_dome(0.5, 0.60, 0.46, 0.46), colour=colour)
    spot = DARK if colour == PALETTE["white"] else (250, 250, 246)
    for x, y, radius in ((0.30, 0.46, 0.06), (0.52, 0.29, 0.07), (0.70, 0.47, 0.06)):
        pen.disc(x, y, radius, spot)


def _dome(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    angles = [math.pi * k / 24 for k in range(25)]
    return [(x + width * math.cos(a), y - height * math.sin(a)) for a in angles]


@_noun("attached", hosts=("cat", "snowman"))
def hat(pen: Pen, colour: Colour) -> None:
    pen.rectangle(0.33, 0.02, 0.67, 0.24, colour, corner=0.02)
    pen.rectangle(0.33, 0.15, 0.67, 0.20, tone(colour, 0.6))
    pen.rectangle(0.20, 0.20, 0.80, 0.27, tone(colour, 0.9), corner=0.03)


@_noun("attached", hosts=("cat", "snowman"))
def scarf(pen: Pen, colour: Colour) -> None:
    pen.polygon((0.58, 0.60), (0.70, 0.60), (0.76, 0.90), (0.62, 0.92), colour=tone(colour, 0.85))
    pen.rectangle(0.26, 0.54, 0.74, 0.67, colour, corner=0.05)


@_noun("attached", hosts=("house", "boat"))
def flag(pen: Pen, colour: Colour) -> None:
    pen.rectangle(0.465, 0.0, 0.50, 0.22, DARK)
    pen.polygon((0.50, 0.0), (0.86, 0.0), (0.78, 0.085), (0.86, 0.17), (0.50, 0.17), colour=colour)


GROUND = tuple(n.name for n in NOUNS.values() if n.zone == "ground")
SKY = tuple(n.name for n in NOUNS.values() if n.zone == "sky")
ATTACHED = tuple(n.name for n in NOUNS.values() if n.zone == "attached")


def attachments_of(host: str) -> tuple[str, ...]:
    """The nouns that can be attached to `host`, in registry order."""
    return tuple(n.name for n in NOUNS.values() if host in n.hosts)
