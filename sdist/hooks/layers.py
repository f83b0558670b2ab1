"""Attention layers of a UNet2DConditionModel by kind and level (level k works at 1 / 2^k of the latent's side)."""

import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary, ref

from torch import nn

from ..errors import UserError


@dataclass(frozen=True)
class Layer:
    """One attention layer: `name` is its module, `level` its resolution, `part` is down, mid or up."""

    name: str
    level: int
    part: str
    heads: int
    scale: float

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of its query grid for latents of that size: each level halves, rounding up."""
        return math.ceil(height / 2**self.level), math.ceil(width / 2**self.level)


_known: WeakKeyDictionary[nn.Module, list] = WeakKeyDictionary()  # UNet -> its layers and their modules


def attention_layers(unet: nn.Module, kind: str) -> list[Layer]:
    """All layers of a kind, "self" (attn1) or "cross" (attn2), in module order."""
    if unet not in _known:  # looked for once: a walk through a UNet takes milliseconds, and every round asks
        blocks = len(unet.config["block_out_channels"])  # type: ignore[index]
        modules = [(name, module) for name, module in unet.named_modules() if name.endswith((".attn1", ".attn2"))]
        _known[unet] = [(_describe(name, module, blocks), ref(module)) for name, module in modules]
    suffix = {"self": "attn1", "cross": "attn2"}[kind]
    found = [(layer, module()) for layer, module in _known[unet] if layer.name.endswith(suffix)]
    for layer, module in found:
        if getattr(module, "fused_projections", False):
            raise UserError(
                f"{layer.name} has fused projections, so its queries and keys cannot be read; call "
                "unet.unfuse_qkv_projections() first"
            )
    return [layer for layer, _ in found]


def layers_at(unet: nn.Module, kind: str, level: int) -> list[Layer]:
    """The layers of a kind at a level; UserError lists the levels that exist if there is none."""
    layers = attention_layers(unet, kind)
    chosen = [layer for layer in layers if layer.level == level]
    if not chosen:
        have = sorted({layer.level for layer in layers})
        raise UserError(
            f"this model has no {kind}-attention at level {level} (1/{2**level} of the latent's side); have levels {have}"
        )
    return chosen


def nearest_level(unet: nn.Module, kind: str, level: int) -> int:
    """The level nearest to the wanted one that has layers of a kind; of two, the finer. UserError if there is none."""
    have = {layer.level for layer in attention_layers(unet, kind)}
    if not have:
        raise UserError(f"this model has no {kind}-attention to make a mask of")
    return min(have, key=lambda own: (abs(own - level), own))


def _describe(name: str, module: nn.Module, blocks: int) -> Layer:
    parts = name.split(".")
    part = parts[0].split("_")[0]
    level = {"down": lambda: int(parts[1]), "mid": lambda: blocks - 1, "up": lambda: blocks - 1 - int(parts[1])}[part]()
    return Layer(name, level, part, module.heads, module.scale)  # type: ignore[arg-type]
