"""Peak memory of one refined map of three layers at SDXL's shape, 64 x 64 tokens in 10 heads of 64: dense matrices against ours.

python experiments/attention_memory.py
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from einops import rearrange

from sdist.benchmark.measure import resident
from sdist.hooks.attention import Attention
from sdist.hooks.layers import Layer

HEADS, WIDTH, SIDE, LAYERS = 10, 64, 64, 3
MIB = 2**20


def measured(dense: bool) -> tuple[int, np.ndarray]:
    """Bytes of resident memory beyond the queries and keys, and the map."""
    torch.manual_seed(0)
    layers = [Layer(f"{i}", 0, "up", HEADS, WIDTH**-0.5) for i in range(LAYERS)]
    self_attention = {layer: (torch.randn(1, SIDE**2, HEADS * WIDTH), torch.randn(1, SIDE**2, HEADS * WIDTH)) for layer in layers}
    cross_attention = {layers[0]: (self_attention[layers[0]][0], torch.randn(1, 77, HEADS * WIDTH))}
    focus = torch.zeros(1, 77)
    focus[0, 5] = 1
    attention, before = Attention(cross_attention, self_attention, (SIDE, SIDE)), resident()
    refined = _dense(attention, focus) if dense else attention.refined(focus)
    return resident() - before, refined.numpy()


def _dense(attention: Attention, focus: torch.Tensor) -> torch.Tensor:
    column = attention.cross_map(focus).flatten(1)[..., None]
    kept = []
    for layer, both in attention.self.items():
        q, k = (rearrange(x, "b n (heads d) -> b heads n d", heads=HEADS) for x in both)
        kept.append((q @ k.mT * layer.scale).softmax(-1))
    return torch.stack([(p.mean(1) @ column) for p in kept]).mean(0).reshape(1, 1, SIDE, SIDE)


def _apart(dense: bool) -> tuple[int, np.ndarray]:
    """Measured in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measured, dense).result()


def main() -> int:
    (dense, one), (ours, other) = (_apart(dense) for dense in (True, False))
    error = np.abs(one - other).max() / np.abs(one).max()
    print(f"dense {dense / MIB:.0f} MiB, ours {ours / MIB:.0f} MiB, largest relative difference of the maps {error:.1e}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
