"""The files of a trace on disk: case.json, its settings, and trace.safetensors, its arrays.

The array "image" may be the file image.png instead, which is smaller; traces of one image share it in the folder above theirs.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import UserError

SETTINGS, ARRAYS, IMAGE = "case.json", "trace.safetensors", "image.png"


def read_settings(folder: Path) -> dict[str, Any]:
    """Raises UserError if there is no case.json, or it is no mapping."""
    path = folder / SETTINGS
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} is no trace: it has no {SETTINGS}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: it must hold a mapping of settings")
    return data


def read_arrays(folder: Path, *names: str) -> dict[str, Tensor]:
    """All arrays. Raises UserError if they cannot be read or lack one of `names`."""
    path = folder / ARRAYS
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    images = [path for path in (folder / IMAGE, folder.parent / IMAGE) if path.exists()]
    if "image" not in arrays and images:
        arrays["image"] = _read_image(images[0])
    if missing := [name for name in names if name not in arrays]:
        raise UserError(f"{path} lacks {', '.join(missing)}")
    return arrays


def _read_image(path: Path) -> Tensor:
    """(h, w, 3) of bytes."""
    try:
        return torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
