"""Embeddings that are made once: their key is the content of what was embedded and what embedded it."""

import logging
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ...files.storage import write_atomic

log = logging.getLogger("sdist")

BATCH = 32  # items that an encoder reads at once

T = TypeVar("T")


class Embeddings:
    """Those that were made so far, in memory and, with a folder, on disk."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._vectors = folder, dict[str, Float[Tensor, " d"]]()

    def __call__(
        self, items: Sequence[T], keys: Sequence[str], compute: Callable[[list[T]], Float[Tensor, "b d"]]
    ) -> Float[Tensor, "n d"]:
        """One embedding per item, on the CPU; `compute` sees each key once, in batches, and only if there is none yet.

        Every batch is written when it is done, each embedding atomically in its safetensors file; a file that cannot be read
        is made again.
        """
        missing = {key: item for key, item in zip(keys, items, strict=True) if not self._has(key)}
        for start in range(0, len(missing), BATCH):
            batch = list(missing)[start : start + BATCH]
            for key, vector in zip(batch, compute([missing[key] for key in batch]).float().cpu(), strict=True):
                self._keep(key, vector)
        return torch.stack([self._vectors[key] for key in keys])

    def _has(self, key: str) -> bool:
        if key not in self._vectors and self._folder is not None and (vector := _read(self._folder, key)) is not None:
            self._vectors[key] = vector
        return key in self._vectors

    def _keep(self, key: str, vector: Float[Tensor, " d"]) -> None:
        self._vectors[key] = vector
        if self._folder is not None:
            _write(self._folder, key, vector)


def image_key(encoder: str, image: Image.Image) -> str:
    """sha256 of the encoder's name and of the image's mode, size and pixels."""
    return sha256(f"{encoder}\n{image.mode} {image.size}\n".encode() + image.tobytes()).hexdigest()


def text_key(encoder: str, text: str) -> str:
    """sha256 of the encoder's name and of the text."""
    return sha256(f"{encoder}\n{text}".encode()).hexdigest()


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.safetensors"


def _read(folder: Path, key: str) -> Float[Tensor, " d"] | None:
    path = _path(folder, key)
    if not path.is_file():
        return None
    try:
        return load_file(path)["embedding"]
    except (SafetensorError, KeyError, OSError):
        log.warning("embedding %s cannot be read and is made again", path)
        return None


def _write(folder: Path, key: str, vector: Float[Tensor, " d"]) -> None:
    path = _path(folder, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, save({"embedding": vector.contiguous()}))
