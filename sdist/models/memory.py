"""What to do when the memory does not suffice: say what was needed, and give back what can be."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import UserError
from ..faults import is_out_of_memory

GIB = 2**30


class AllocationError(UserError):
    """An allocation failed: `reason` says what was wanted and what the device has."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what, self.reason = what, reason

    def __str__(self) -> str:
        return f"{self.what} does not fit in memory: {self.reason}; a smaller --size, or --precision fp16, takes less"


@contextmanager
def allocating(device: torch.device | str, what: str) -> Iterator[None]:
    """Raises AllocationError, which says what does not fit, where an allocator raised what it raises."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise AllocationError(what, describe(error, torch.device(device))) from error


def describe(error: BaseException, device: torch.device) -> str:
    """The allocator's own words, which name what was wanted, and what the device has."""
    words = " ".join(str(error).split()) or type(error).__name__
    return f"{words[:300]} ({available(device)} on {device})"


def release(device: torch.device) -> None:
    """Gives what the allocator keeps back to the device, so that one large piece may fit."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int | None:
    """Of memory that is free: on a CUDA device with what the allocator keeps for tensors to come. None where nobody says it."""
    if device.type == "cuda":
        return cuda_free_bytes(device)
    try:
        from os import sysconf

        return sysconf("SC_AVPHYS_PAGES") * sysconf("SC_PAGE_SIZE")
    except (ImportError, ValueError, OSError):
        return None


def cuda_free_bytes(device: torch.device) -> int:
    """Of a CUDA device, with what the allocator keeps."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def available(device: torch.device) -> str:
    """How much is free, in words."""
    if device.type == "cuda" and torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info(device)
        return f"{free / GIB:.2f} of {total / GIB:.2f} GiB free"
    unused = free_bytes(torch.device("cpu"))
    return "an unknown amount free" if unused is None else f"{unused / GIB:.2f} GiB free"
