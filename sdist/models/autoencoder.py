"""The autoencoder, one image at a time, to bound the memory; on the CPU where its device has too little left."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from .finite import check_finite
from .memory import AllocationError, allocating, release

log = logging.getLogger("sdist")

Part = Literal["encoder", "decoder"]


class Posterior(NamedTuple):
    """Of latents, given an image."""

    mean: Tensor
    std: Tensor


def through_autoencoder(vae: Any, rows: Tensor, part: Part, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """What `compute` makes of each row with the autoencoder, which is in float32.

    Raises AllocationError and NotFiniteError.
    """
    done = []
    for row in rows:
        done.append(_one(vae, row[None], part, compute))
        check_finite(f"the {part} of the vae", done[-1])
    return torch.cat(done)


def _one(vae: Any, row: Tensor, part: Part, compute: Callable[[Tensor], Tensor]) -> Tensor:
    what = f"the {part} of the vae, at {' x '.join(map(str, row.shape[:-3:-1]))}"
    try:
        with allocating(row.device, what):
            return compute(row)
    except AllocationError as error:
        if row.device.type == "cpu":
            raise
        reason = str(error)
    log.warning("%s; it runs on the CPU instead", reason)
    with moved(vae, "cpu"), allocating("cpu", what):
        release(row.device)
        return compute(row.cpu())


@contextmanager
def moved(network: nn.Module, device: str) -> Iterator[None]:
    """The network is there in the block, and afterwards where it was."""
    home = next(network.parameters()).device
    nn.Module.to(network, device)
    try:
        yield
    finally:
        nn.Module.to(network, home)
