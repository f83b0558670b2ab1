"""The network alone, timed."""

import time

import torch

from ..edits.request import Prepared
from ..models.base import Backbone

BARE_CALLS = 5  # of the network, each turn


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def bare_rows_per_second(backbone: Backbone, prepared: Prepared, rows: int) -> float:
    """Of the network alone, compiled if the backbone is: the same rows, one call after the other."""
    width, height = (side // backbone.factor for side in prepared.image.size)
    z = torch.randn(rows, backbone.channels, height, width, device=backbone.device)
    t, text = torch.full((rows,), 500, device=backbone.device), backbone.embed([prepared.request.target]).repeat(rows)
    start = now(backbone.device)
    for _ in range(BARE_CALLS):
        backbone.estimate(z, t, text)
    return BARE_CALLS * rows / (now(backbone.device) - start)
