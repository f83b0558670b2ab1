"""From images to what encoders read, with Pillow and torch alone, so that scores do not depend on what else is installed."""

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..profile import Profile

Colours = tuple[float, float, float]  # one value per channel, of values in 0..1

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LONGEST = 480  # long side in pixels of what the structure distance reads, for a short side of 224


def clip_pixels(image: Image.Image, side: int, profile: Profile) -> Float[Tensor, "3 side side"]:
    """CLIP's input: short side to `side` (bicubic), centre crop, CLIP's normalization."""
    return _normalize(center_crop(resize_short(image, side), side, profile), CLIP_MEAN, CLIP_STD)


def dino_pixels(image: Image.Image, side: int, profile: Profile) -> Float[Tensor, "3 side side"]:
    """DINO's input for similarity: short side to 8/7 of `side` (bicubic; 256 for 224), centre crop, ImageNet's normalization."""
    image = center_crop(resize_short(image, round(side * 8 / 7)), side, profile)
    return _normalize(image, IMAGENET_MEAN, IMAGENET_STD)


def structure_pixels(image: Image.Image, side: int, profile: Profile) -> Float[Tensor, "3 h w"]:
    """DINO's input for the structure distance: short side to `side` (bilinear), long side at most 15/7 of it, no crop.

    official: values of 0..255 enter a normalization made for 0..1, and the resize aliases, as in the code of PnPInversion.
    clean: values of 0..1, antialiased.
    """
    short, long = side, int(side * max(image.size) / min(image.size))
    longest = side * LONGEST // 224
    if long > longest:
        short, long = int(longest * short / long), longest
    height, width = (short, long) if image.height <= image.width else (long, short)
    values = torch.from_numpy(np.array(image.convert("RGB"), np.float32)).permute(2, 0, 1)
    values = values if profile == "official" else values / 255
    values = F.interpolate(values[None], (height, width), mode="bilinear", antialias=profile == "clean")[0]
    return _standardize(values, IMAGENET_MEAN, IMAGENET_STD)


def resize_short(image: Image.Image, side: int) -> Image.Image:
    """The RGB image with its short side at `side`, its long side rounded down; bicubic."""
    short, long = sorted(image.size)
    size = (side, int(side * long / short)) if image.width <= image.height else (int(side * long / short), side)
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def center_crop(image: Image.Image, side: int, profile: Profile) -> Image.Image:
    """The square in the middle.

    The profiles differ where the margins do: official rounds the first to the nearest, half to even, as torchvision does;
    clean rounds it down, as transformers does.
    """
    left, top = (round((n - side) / 2) if profile == "official" else (n - side) // 2 for n in image.size)
    return image.crop((left, top, left + side, top + side))


def _normalize(image: Image.Image, mean: Colours, std: Colours) -> Float[Tensor, "3 h w"]:
    return _standardize(torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1) / 255, mean, std)


def _standardize(values: Float[Tensor, "3 h w"], mean: Colours, std: Colours) -> Float[Tensor, "3 h w"]:
    return (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
