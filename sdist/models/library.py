"""Calls of the libraries' loaders: without their chatter, and without what the environment switches on in them."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

TALKERS = ("diffusers", "transformers", "huggingface_hub")
SILENT = logging.CRITICAL + 1  # they log errors about what they then raise, which is said in one line here


@contextmanager
def loading() -> Iterator[None]:
    """For the time of the block, no warning, report or bar of the libraries; all is as before afterwards."""
    from diffusers.models import modeling_utils
    from transformers.utils import logging as bars

    with ExitStack() as stack:
        for name in TALKERS:
            stack.enter_context(quiet(name))
        # diffusers refuses to load in parallel what is not loaded lazily, and reads its variable when it is imported
        stack.enter_context(attribute(modeling_utils, "HF_ENABLE_PARALLEL_LOADING", False))
        stack.enter_context(attribute(bars, "_tqdm_active", False))
        yield


@contextmanager
def quiet(name: str, level: int = SILENT) -> Iterator[None]:
    """Nothing below that level from a logger and those below it that have no level of their own."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def attribute(module: Any, name: str, value: Any) -> Iterator[None]:
    """A value of a module that the installed version has, for the time of the block."""
    if not hasattr(module, name):
        yield
        return
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
