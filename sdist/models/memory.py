"""What to do when the memory does not suffice: tell such an error from others, and say what was needed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

GIB = 2**30
SIGNS = ("out of memory", "can't allocate memory", "not enough memory")  # CUDA and MPS; the CPU on Linux; on Windows


class AllocationError(Exception):
    """An allocation failed; the message says what was wanted and what the device has."""


@contextmanager
def allocating(device: torch.device) -> Iterator[None]:
    """Raises AllocationError where an allocator raised what it raises."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise AllocationError(describe(error, device)) from error


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocation failed."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error).lower() for sign in SIGNS)


def describe(error: RuntimeError, device: torch.device) -> str:
    """The allocator's own words, which name what was wanted, and what the device has."""
    words = " ".join(str(error).split())
    return f"{words[:300]} ({available(device)} on {device})"


def available(device: torch.device) -> str:
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return f"{free / GIB:.2f} of {total / GIB:.2f} GiB free"
    try:
        from os import sysconf

        return f"{sysconf('SC_AVPHYS_PAGES') * sysconf('SC_PAGE_SIZE') / GIB:.2f} GiB free"
    except (ImportError, ValueError, OSError):
        return "an unknown amount free"
