"""Small drawing tools: a pen in unit coordinates, and shading that gives flat shapes some texture."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
OVERSAMPLE = 4  # objects are drawn at four times their size, then reduced: that is the anti-aliasing

PALETTE: dict[str, Colour] = {
    "red": (206, 48, 44),
    "blue": (48, 92, 208),
    "green": (44, 142, 66),
    "yellow": (240, 202, 52),
    "purple": (140, 62, 172),
    "white": (240, 240, 238),
}

BROWN: Colour = (112, 76, 48)
DARK: Colour = (44, 42, 52)
CREAM: Colour = (246, 232, 206)
GLASS: Colour = (178, 214, 234)


def tone(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor < 1) or lighter (factor > 1), clipped to 0..255."""
    red, green, blue = (int(min(255, max(0, c * factor))) for c in colour)
    return red, green, blue


@dataclass
class Pen:
    """Draws on a transparent square tile; every coordinate is a fraction of the tile's side, y down."""

    side: int
    tile: Image.Image = field(init=False)

    def __post_init__(self) -> None:
        self.tile = Image.new("RGBA", (self.side, self.side), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.tile)

    def _scaled(self, points: tuple[float, ...]) -> list[float]:
        return [p * self.side for p in points]

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        self._draw.ellipse(self._scaled((x0, y0, x1, y1)), fill=(*colour, 255))

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        self.ellipse(x - radius, y - radius, x + radius, y + radius, colour)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, corner: float = 0.0) -> None:
        self._draw.rounded_rectangle(self._scaled((x0, y0, x1, y1)), corner * self.side, fill=(*colour, 255))

    def polygon(self, *points: tuple[float, float], colour: Colour) -> None:
        self._draw.polygon([(x * self.side, y * self.side) for x, y in points], fill=(*colour, 255))

    def line(self, *points: tuple[float, float], width: float, colour: Colour) -> None:
        scaled = [(x * self.side, y * self.side) for x, y in points]
        self._draw.line(scaled, fill=(*colour, 255), width=max(1, int(width * self.side)), joint="curve")

    def erase(self, x: float, y: float, radius: float) -> None:
        box = self._scaled((x - radius, y - radius, x + radius, y + radius))
        self._draw.ellipse(box, fill=(0, 0, 0, 0))


def smooth_noise(rng: np.random.Generator, side: int, cells: int) -> np.ndarray:
    """Noise in [-1, 1] of shape (side, side), smooth over side / cells pixels."""
    coarse = (rng.random((cells, cells)) * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), np.float32) / 127.5 - 1


def shade(tile: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The tile lit from one side, with a slight texture and a slight change of brightness; alpha is kept."""
    side = tile.width
    pixels = np.asarray(tile, np.float32).copy()
    slope = np.linspace(1, -1, side, dtype=np.float32)
    light = 0.10 * slope[:, None] + rng.uniform(-0.08, 0.08) * slope[None, :]
    light = 1 + light + 0.06 * smooth_noise(rng, side, 9) + rng.uniform(-0.08, 0.05)
    pixels[..., :3] *= light[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGBA")
