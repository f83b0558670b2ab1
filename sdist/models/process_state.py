"""What an edit needs of the process that it runs in, set for its time; whatever the caller had set is as before afterwards."""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, cast

import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from PIL import ImageFile

from .attention_backend import NATIVE, backend, set_backend
from .float32 import exact, rounding, set_rounding

RANK = cast(Any, rank_zero_only)  # a function whose attribute `rank` says which process may write logs
AUTOCAST = ("cpu", "cuda", "mps")  # devices on which a caller may let torch choose number formats


class ProcessState(NamedTuple):
    """What an edit needs of the process."""

    dtype: torch.dtype  # of numbers that are made without one
    levels: Mapping[str, int]  # of loggers
    rounding: tuple[Any, ...]  # of float32, which torch may do by halves
    truncated: bool  # whether Pillow takes images that are cut short
    rank: int  # of the process, in what Lightning takes for a group of them: RANK, LOCAL_RANK or SLURM_PROCID
    attention: str  # diffusers' backend, where a layer names none; DIFFUSERS_ATTN_BACKEND


OURS = ProcessState(
    torch.float32, {"lightning_fabric": logging.ERROR, "pytorch_lightning": logging.ERROR}, exact(), False, 0, NATIVE
)


@contextmanager
def process_state() -> Iterator[None]:
    """In the block numbers are made in float32 on the CPU unless said otherwise, float32 is not rounded to TF32 or bfloat16,
    gradients can be had, and Lightning is silent and takes the process for the only one.

    So the caller's default dtype and device, torch.set_float32_matmul_precision, torch.inference_mode, torch.no_grad and
    torch.autocast change no result. The global random generators are left alone: nothing here draws from them.
    """
    with ExitStack() as stack:
        stack.enter_context(_process)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in AUTOCAST:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


class _Process:
    """What all threads share: the first that enters saves it and sets its own, the last that leaves puts it back."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, OURS

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                levels = {name: logging.getLogger(name).level for name in OURS.levels}
                truncated = ImageFile.LOAD_TRUNCATED_IMAGES
                self._before = ProcessState(torch.get_default_dtype(), levels, rounding(), truncated, RANK.rank, backend())
                _set(OURS)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                _set(self._before)


def _set(state: ProcessState) -> None:
    torch.set_default_dtype(state.dtype)
    set_rounding(state.rounding)
    ImageFile.LOAD_TRUNCATED_IMAGES = state.truncated
    RANK.rank = state.rank
    set_backend(state.attention)
    for name, level in state.levels.items():
        logging.getLogger(name).setLevel(level)


_process = _Process()
