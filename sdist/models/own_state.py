"""What an edit needs of the process that it runs in, set for its time; whatever the caller had set is as before afterwards."""

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

SILENT = ("lightning_fabric", "pytorch_lightning")  # loggers that speak of every run
AUTOCAST = ("cpu", "cuda", "mps")  # devices on which a caller may let torch choose number formats


@contextmanager
def own_state() -> Iterator[None]:
    """In the block numbers are made in float32 on the CPU unless said otherwise, gradients can be had, and Lightning is silent.

    So the caller's default dtype and device, torch.inference_mode, torch.no_grad and torch.autocast change no result. The
    global random generators are left alone: nothing here draws from them.
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
        self._lock, self._inside, self._before = threading.Lock(), 0, (torch.float32, dict[str, int]())

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = torch.get_default_dtype(), {name: logging.getLogger(name).level for name in SILENT}
                _set(torch.float32, dict.fromkeys(SILENT, logging.ERROR))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                _set(*self._before)


def _set(dtype: torch.dtype, levels: dict[str, int]) -> None:
    torch.set_default_dtype(dtype)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


_process = _Process()
