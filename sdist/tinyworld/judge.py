"""A small classifier that says what a picture of tinyworld shows: which noun-colour pairs, and which place."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..files.images import to_pixels
from .backgrounds import PLACES
from .drawing import PALETTE
from .objects import NOUNS
from .scene import Scene

WEIGHTS = Path(__file__).parent / "weights" / "judge.safetensors"
PLACE_NAMES, NOUN_NAMES, COLOUR_NAMES = list(PLACES), list(NOUNS), list(PALETTE)

Pair = tuple[str, str]  # (noun, colour)


class Facts(NamedTuple):
    """What a scene shows, or what the judge sees."""

    place: str
    pairs: frozenset[Pair]

    @property
    def nouns(self) -> frozenset[str]:
        return frozenset(noun for noun, _ in self.pairs)


def facts(scene: Scene) -> Facts:
    """The truth about a scene: its place, and the pairs of its things and of what is attached to them."""
    parts = [p for thing in scene.things for p in (thing, thing.attachment) if p is not None]
    return Facts(scene.place, frozenset((p.noun, p.colour) for p in parts))


class Judge(nn.Module):
    """A convolutional classifier of 0.6 million parameters.

    Every cell of a 16 x 16 grid says what it sees; a pair is in the picture as much as in the cell that is surest of it,
    the place is the mean of all cells.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 48, 6, stride=4, padding=1), _Residual(48), _Residual(48),
            nn.Conv2d(48, 96, 3, stride=2, padding=1), _Residual(96), _Residual(96), _Residual(96),
            nn.GroupNorm(8, 96), nn.SiLU(),
        )  # fmt: skip
        self.pairs = nn.Conv2d(96, len(NOUN_NAMES) * len(COLOUR_NAMES), 1)
        self.places = nn.Conv2d(96, len(PLACE_NAMES), 1)

    def forward(self, pixels: Float[Tensor, "b 3 128 128"]) -> tuple[Float[Tensor, "b nouns colours"], Float[Tensor, "b places"]]:
        """Logits of every pair and of every place, of pixels in [-1, 1]."""
        cells = self.body(pixels)
        pairs = self.pairs(cells).amax((2, 3))
        return rearrange(pairs, "b (n c) -> b n c", c=len(COLOUR_NAMES)), self.places(cells).mean((2, 3))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(self.norm(x)))))


@cache
def load_judge() -> Judge:
    """The judge that the package carries, in float32 on the CPU."""
    judge = Judge().eval().requires_grad_(False)
    judge.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return judge


@torch.no_grad()
def look(images: Sequence[Image.Image]) -> list[Facts]:
    """What the judge sees in pictures of 128 x 128 pixels."""
    seen: list[Facts] = []
    for start in range(0, len(images), 64):
        pairs, places = load_judge()(to_pixels(list(images[start : start + 64])))
        for shown, place in zip(pairs > 0, places.argmax(1), strict=True):
            things = frozenset((NOUN_NAMES[n], COLOUR_NAMES[c]) for n, c in shown.nonzero().tolist())
            seen.append(Facts(PLACE_NAMES[int(place)], things))
    return seen
