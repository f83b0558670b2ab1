"""Attention layers of a denoiser by kind and level (level k works at 1 / 2^k of the latent's side)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from ..errors import UserError

Kind = Literal["cross", "self"]  # what an image token's queries look at: the text, the image
Projected = Float[Tensor, "n _ width"]  # of all heads, side by side


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


def refuse_fused(layer: Layer, module: nn.Module, denoiser: str) -> None:
    """Raises UserError for an attention module of the `denoiser`, as diffusers names it, that makes Q, K and V in one product."""
    if getattr(module, "fused_projections", False):
        raise UserError(
            f"{layer.name} has fused projections, so its queries and keys cannot be read; call "
            f"{denoiser}.unfuse_qkv_projections() first"
        )


def check_tokens(layer: Layer, count: int, size: tuple[int, int]) -> None:
    """Raises UserError if a layer looks at another number of tokens than latents of that size (height, width) have."""
    height, width = layer.size(*size)
    if count != height * width:
        raise UserError(
            f"{layer.name} looks at {count} tokens of an image of {height} x {width}: something merges or drops tokens (ToMe?), "
            "so what is seen where cannot be read; undo it, as by tomesd.remove_patch(pipe)"
        )


class AttentionLayout(ABC):
    """Which layers of a denoiser read the text and which the image, and how to obtain their queries and keys.

    A joint layer, where image tokens look at both, may be listed under both kinds.
    """

    @abstractmethod
    def layers(self, kind: Kind) -> list[Layer]:
        """All layers of a kind whose queries and keys can be read, in module order. Raises UserError if something hides them."""

    @abstractmethod
    def features(self) -> list[Layer]:
        """The layers whose outputs describe the image's structure; a layer's name is the module that returns (n, tokens, d)."""

    def outputs(self) -> list[Layer]:
        """Like `features`, but all that there are, in the order of the network; the same where a family does not know more."""
        return self.features()

    @abstractmethod
    def reads(self, kind: Kind, layer: Layer) -> tuple[str, ...]:
        """The modules whose outputs `queries_and_keys` asks for."""

    @abstractmethod
    def queries_and_keys(self, kind: Kind, layer: Layer, output: Callable[[str], Tensor]) -> tuple[Projected, Projected]:
        """The image tokens' queries and the keys that they look at, as they enter the softmax but for the scale.

        "cross": the keys of all tokens of the text come first, and if the layer is a joint one those of the image after them.
        "self": the keys of the image alone.
        """

    def at(self, kind: Kind, *levels: int) -> list[Layer]:
        """The layers of a kind at any of those levels. Raises UserError with the levels that exist if there is none at all."""
        layers = self.layers(kind)
        chosen = [layer for layer in layers if layer.level in levels]
        if not chosen:
            have, asked = sorted({layer.level for layer in layers}), " or ".join(map(str, levels)) or "none"
            raise UserError(
                f"this model has no {kind}-attention at level {asked} (1/2^level of the latent's side); have levels {have}"
            )
        return chosen

    def nearest(self, kind: Kind, level: int) -> int:
        """The level nearest to the given one that has layers of a kind; of two, the finer. Raises UserError if there is none."""
        have = {layer.level for layer in self.layers(kind)}
        if not have:
            raise UserError(f"this model has no {kind}-attention to make a mask of")
        return min(have, key=lambda candidate: (abs(candidate - level), candidate))
