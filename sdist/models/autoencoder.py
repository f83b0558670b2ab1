"""The autoencoder, one image at a time, to bound the memory; in tiles, or on the CPU, where its device has too little left."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from .finite import check_finite
from .memory import AllocationError, allocating, release

log = logging.getLogger("sdist")

Part = Literal["encoder", "decoder"]
Tiled = dict[str, int]  # by part and size: into how many tiles the longer side is cut
TILES = (2, 4)  # what is tried


class Posterior(NamedTuple):
    """Of latents, given an image."""

    mean: Tensor
    std: Tensor


def through_autoencoder(vae: Any, rows: Tensor, part: Part, compute: Callable[[Tensor], Tensor], tiled: Tiled) -> Tensor:
    """What `compute` makes of each row with the autoencoder, which is in float32.

    `tiled`: what goes in tiles, to which is added what turns out to need that. Raises AllocationError and NotFiniteError.
    """
    done = []
    for row in rows:
        done.append(_one(vae, row[None], part, compute, tiled))
        check_finite(f"the {part} of the vae", done[-1])
    return torch.cat(done)


def _one(vae: Any, row: Tensor, part: Part, compute: Callable[[Tensor], Tensor], tiled: Tiled) -> Tensor:
    """Whole if memory suffices, else in tiles, else on the CPU."""
    size = f"{part}, {' x '.join(map(str, row.shape[:-3:-1]))}"
    what = f"the {part} of the vae, at {size.partition(', ')[2]}"
    failure = AllocationError("", "")
    for tiles in [tiled[size]] if size in tiled else [1, *(TILES if hasattr(vae, "tile_latent_min_size") else ())]:
        try:
            with allocating(row.device, what), in_tiles(vae, part, row, tiles):
                computed = compute(row)
        except AllocationError as error:
            failure = error
            release(row.device)
            continue
        if tiles > 1 and size not in tiled:
            log.warning("%s; it goes in tiles, %d along the longer side, whose seams may show", failure, tiles)
            tiled[size] = tiles
        return computed
    if row.device.type == "cpu":
        raise failure
    log.warning("%s; it runs on the CPU instead", failure)
    with moved(vae, "cpu"), allocating("cpu", what):
        release(row.device)
        return compute(row.cpu())


@contextmanager
def in_tiles(vae: Any, part: Part, row: Tensor, tiles: int) -> Iterator[None]:
    """In the block the autoencoder takes so many overlapping tiles along the longer side, which it blends; 1: all at once."""
    if tiles == 1:
        yield
        return
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    longest = max(row.shape[-2:]) // (factor if part == "encoder" else 1)
    side = 4 * math.ceil(longest / tiles / 4)  # in latents; tiles overlap by a quarter, which must be whole
    wanted = {"use_tiling": True, "tile_latent_min_size": side, "tile_sample_min_size": side * factor}
    before = {name: getattr(vae, name) for name in wanted}
    vars(vae).update(wanted)
    try:
        yield
    finally:
        vars(vae).update(before)


@contextmanager
def moved(network: nn.Module, device: str) -> Iterator[None]:
    """The network is there in the block, and afterwards where it was."""
    home = next(network.parameters()).device
    nn.Module.to(network, device)
    try:
        yield
    finally:
        nn.Module.to(network, home)
