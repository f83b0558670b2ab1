"""The arguments of a pipeline's call, one row per image, and its images in the type that was asked for."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from types import NoneType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..edits.request import Request
from ..errors import UserError
from ..files.images import to_pixels
from ..files.in_memory import PICTURES, image_file

KINDS: dict[str, tuple[type, ...]] = {
    "prompt": (str,),
    "source_prompt": (str,),
    "image": PICTURES,
    "mask_image": (*PICTURES, NoneType),
    "words": (tuple,),
    "seed": (int, NoneType),
}


def broadcast_arguments(**arguments: Any) -> list[dict[str, Any]]:
    """The arguments that KINDS names, one row per image: a list has one value per image, anything else is for all."""
    counts = {name: len(value) for name, value in arguments.items() if isinstance(value, list)}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise UserError(f"lists have one value per image, got {', '.join(f'{n} of {name}' for name, n in counts.items())}")
    count = max(counts.values(), default=1)
    rows = [{name: value[i] if name in counts else value for name, value in arguments.items()} for i in range(count)]
    for name, value in (item for row in rows for item in row.items()):
        if not isinstance(value, KINDS[name]):
            allowed = " or ".join(kind.__name__ for kind in KINDS[name])
            raise UserError(f"{name} is {allowed}, or a list with one per image; got {type(value).__name__}")
    return rows


def words_of(words: str | Sequence[str] | Sequence[Sequence[str]]) -> tuple[str, ...] | list[tuple[str, ...]]:
    """Words for all images as a tuple, words of each as a list of tuples."""
    if isinstance(words, str):
        return (words,)
    common = [word for word in words if isinstance(word, str)]
    return tuple(common) if len(common) == len(words) else [tuple(each) for each in words]


def seeds_of(seed: int | list[int] | None, generator: torch.Generator | list[torch.Generator] | None) -> Any:
    """The seeds that were given, or those that the generators were made with."""
    if generator is None:
        return seed
    if seed is not None:
        raise UserError("seed and generator say the same thing: give one of them")
    return [g.initial_seed() for g in generator] if isinstance(generator, list) else generator.initial_seed()


def as_type(images: list[Image.Image], output_type: str) -> list[Image.Image] | np.ndarray | Tensor:
    """Images as they are for "pil"; of values in 0..1 "pt" (b, 3, h, w) and "np" (b, h, w, 3)."""
    if output_type == "pil":
        return images
    sizes = dict.fromkeys(f"{image.width} x {image.height}" for image in images)
    if len(sizes) > 1:
        raise UserError(f"output_type {output_type} is one array, and the results are {', '.join(sizes)}: pil is a list")
    pixels = (to_pixels(images) + 1) / 2
    return pixels if output_type == "pt" else pixels.permute(0, 2, 3, 1).numpy()


def common_seed(seeds: Iterable[int | None]) -> int | None:
    """The seed that all images have; None if they differ, or have none."""
    first, *others = set(seeds)
    return None if others else first


def size_of(height: int | None, width: int | None) -> str | None:
    """As the setting `size` is written; None leaves it to the method."""
    if (height is None) != (width is None):
        raise UserError(f"height and width belong together, got height {height} and width {width}")
    return None if width is None else f"{width}x{height}"


def to_request(row: dict[str, Any], seed: int, files: ExitStack, instructs: bool) -> Request:
    """The request of a row, with images in memory put on disk until `files` closes; `seed` where the row has none.

    `instructs`: the prompt says what to do.
    """
    image, mask = files.enter_context(image_file(row["image"])), row["mask_image"]
    mask_file = None if mask is None else files.enter_context(image_file(mask, is_mask=True))
    seed = seed if row["seed"] is None else row["seed"]
    source, target, instruction = ("", "", row["prompt"]) if instructs else (row["source_prompt"], row["prompt"], "")
    return Request(image, source, target, seed, row["words"], mask_file, instruction)
