"""The five places of tinyworld: one painting function per place, named as the place, pixels in 0..255."""

from collections.abc import Callable

import numpy as np

from .drawing import smooth_noise

Painting = Callable[[np.random.Generator, int], np.ndarray]
PLACES: dict[str, Painting] = {}


def _place(paint: Painting) -> Painting:
    PLACES[paint.__name__] = paint
    return paint


def _vertical(side: int, top: tuple[float, ...], bottom: tuple[float, ...]) -> np.ndarray:
    ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    rows = np.asarray(top, np.float32) * (1 - ramp) + np.asarray(bottom, np.float32) * ramp
    return np.broadcast_to(rows, (side, side, 3)).copy()


def _below(rng: np.random.Generator, side: int, level: float, waviness: float) -> np.ndarray:
    """How much each pixel lies below a wavy horizon at height `level`: 0 above, 1 below, shape (side, side, 1)."""
    x = np.linspace(0, 2 * np.pi, side, dtype=np.float32)
    wave = np.sin(x * rng.uniform(0.5, 1.6) + rng.uniform(0, 6.28)) + 0.4 * np.sin(2.7 * x + rng.uniform(0, 6.28))
    horizon = side * (level + waviness * wave)
    depth = np.arange(side, dtype=np.float32)[:, None] - horizon[None, :]
    return np.clip(depth + 0.5, 0, 1)[..., None]


def _land(rng: np.random.Generator, sky: np.ndarray, ground: np.ndarray, waviness: float, grain: float) -> np.ndarray:
    side = len(sky)
    texture = smooth_noise(rng, side, 40) + 0.6 * smooth_noise(rng, side, 12)
    below = _below(rng, side, rng.uniform(0.50, 0.60), waviness)
    sky = sky * (1 + 0.03 * smooth_noise(rng, side, 5)[..., None])
    return sky * (1 - below) + ground * (1 + grain * texture[..., None]) * below


@_place
def meadow(rng: np.random.Generator, side: int) -> np.ndarray:
    sky = _vertical(side, (126, 186, 236), (206, 230, 244))
    return _land(rng, sky, _vertical(side, (150, 206, 110), (104, 172, 74)), waviness=0.025, grain=0.10)


@_place
def beach(rng: np.random.Generator, side: int) -> np.ndarray:
    sky = _vertical(side, (150, 208, 240), (222, 238, 244))
    image = _land(rng, sky, _vertical(side, (60, 150, 190), (70, 170, 196)), waviness=0.0, grain=0.07)
    shore = _below(rng, side, rng.uniform(0.68, 0.74), 0.015)
    sand = _vertical(side, (236, 212, 160), (222, 194, 140)) * (1 + 0.05 * smooth_noise(rng, side, 48)[..., None])
    return image * (1 - shore) + sand * shore


@_place
def snow(rng: np.random.Generator, side: int) -> np.ndarray:
    sky = _vertical(side, (166, 184, 208), (212, 220, 232))
    image = _land(rng, sky, _vertical(side, (232, 238, 246), (206, 216, 232)), waviness=0.03, grain=0.025)
    for x, y in rng.integers(1, side - 1, (30, 2)):
        image[y, x] = 252
    return image


@_place
def desert(rng: np.random.Generator, side: int) -> np.ndarray:
    sky = _vertical(side, (244, 186, 120), (252, 222, 170))
    return _land(rng, sky, _vertical(side, (214, 142, 84), (186, 112, 62)), waviness=0.045, grain=0.05)


@_place
def night(rng: np.random.Generator, side: int) -> np.ndarray:
    sky = _vertical(side, (18, 22, 58), (44, 50, 98))
    for x, y in zip(rng.integers(1, side - 1, 26), rng.integers(1, side // 2, 26), strict=True):
        sky[y, x] = rng.uniform(150, 240)
    return _land(rng, sky, _vertical(side, (44, 58, 66), (26, 36, 44)), waviness=0.02, grain=0.10)
