"""What a component's or a network's own code gets wrong becomes one line that names the component and the place in its file."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import UserError
from .prediction import Branch

SIGNS = (
    *("out of memory", "can't allocate memory", "not enough memory"),  # CUDA and MPS; the CPU on Linux; on Windows
    *("cannot allocate memory", "alloc_failed"),  # the system (ENOMEM); the libraries of CUDA
)


@contextmanager
def naming(slot: str, component: Any) -> Iterator[None]:
    """Raises UserError for what the block raises.

    Bad input, numbers that are not finite, failed allocations and errors of the disk pass.
    """
    try:
        yield
    except (UserError, FloatingPointError):
        raise
    except Exception as error:
        if is_out_of_memory(error) or getattr(error, "errno", None) is not None:
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        raise UserError(f"{slot} {type(component).__name__}: {_reason(error)} ({where})") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(sign in str(error).lower() for sign in SIGNS)


def check_shape(slot: str, component: Any, what: str, value: Tensor, expected: tuple[int, ...]) -> None:
    """Raises UserError for a tensor that broadcasting would silently stretch."""
    if tuple(value.shape) != expected:
        raise UserError(f"{slot} {type(component).__name__}: its {what} has the shape {tuple(value.shape)}, expected {expected}")


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError) and isinstance(error.args[0], Branch):
        latent, prompt, _ = error.args[0]
        return f"it reads the prediction of ({latent}, {prompt}), which is not among its branches"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
