"""The attention layers of a UNet2DConditionModel: attn1 is self-attention, attn2 cross-attention to the text."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..hooks.layers import AttentionLayout, Kind, Layer, Projected, refuse_fused


class UNetLayout(AttentionLayout):
    """Looks for the layers once: a walk through a UNet takes milliseconds, and every round asks."""

    def __init__(self, unet: Any) -> None:
        blocks = len(unet.config["block_out_channels"])
        modules = [(name, module) for name, module in unet.named_modules() if name.endswith((".attn1", ".attn2"))]
        self._found = [(_describe(name, module, blocks), module) for name, module in modules]

    def layers(self, kind: Kind) -> list[Layer]:
        suffix = {"self": "attn1", "cross": "attn2"}[kind]
        chosen = [(layer, module) for layer, module in self._found if layer.name.endswith(suffix)]
        for layer, module in chosen:
            refuse_fused(layer, module, "unet")
        return [layer for layer, _ in chosen]

    def features(self) -> list[Layer]:
        """Self-attention of the decoder, after the output projection."""
        return [layer for layer in self.layers("self") if layer.part == "up"]

    def outputs(self) -> list[Layer]:
        """Self- and cross-attention of all blocks, after the output projection: down, up, mid."""
        return [layer for layer, _ in self._found]

    def reads(self, kind: Kind, layer: Layer) -> tuple[str, ...]:
        return f"{layer.name}.to_q", f"{layer.name}.to_k"

    def queries_and_keys(self, kind: Kind, layer: Layer, output: Callable[[str], Tensor]) -> tuple[Projected, Projected]:
        queries, keys = self.reads(kind, layer)
        return output(queries), output(keys)


def _describe(name: str, module: Any, blocks: int) -> Layer:
    parts = name.split(".")
    part = parts[0].split("_")[0]
    level = {"down": lambda: int(parts[1]), "mid": lambda: blocks - 1, "up": lambda: blocks - 1 - int(parts[1])}[part]()
    return Layer(name, level, part, module.heads, module.scale)
