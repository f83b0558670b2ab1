"""Where text encoders stand: on the device while they embed, elsewhere where it is short of memory."""

import logging
from collections.abc import Sequence
from typing import Any

import torch

from ..prediction import Text
from .memory import AllocationError, allocating, cuda_free_bytes, release
from .text import PromptEncoder

log = logging.getLogger("sdist")

SHORT = 0.25  # of a GPU's memory: where less than that is free after embedding, the text encoders leave it


def embed_where_it_fits(text: PromptEncoder, prompts: Sequence[str], device: torch.device, leave: bool = False) -> Text:
    """Embeddings on the device. Where its memory does not suffice for the encoders, they run on the CPU.

    `leave`: they leave the device in any case.
    """
    what = f"the embedding of {len(prompts)} prompts"
    try:
        with allocating(device, what):
            _move(text.encoders, device)
            embedded = text.embed(prompts)
        if leave or is_short(device):
            _move(text.encoders, torch.device("cpu"))
            release(device)
        return embedded
    except AllocationError as error:
        if device.type == "cpu":
            raise
        reason = str(error)
    log.warning("%s; the text encoders run on the CPU instead", reason)
    _move(text.encoders, torch.device("cpu"))
    release(device)
    with allocating("cpu", what):
        return text.embed(prompts).map(lambda part: part.to(device))


def is_short(device: torch.device) -> bool:
    """Whether the encoders' memory is better left to images. Only CUDA says how much is free."""
    if device.type != "cuda":
        return False
    return cuda_free_bytes(device) < SHORT * torch.cuda.get_device_properties(device).total_memory


def _move(encoders: Sequence[Any], device: torch.device) -> None:
    for encoder in encoders:
        if next(encoder.parameters()).device != device:
            encoder.to(device)
