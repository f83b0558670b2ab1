"""Latents as sequences of tokens: squares of neighbouring latents stacked along the channels."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

PATCH = 2  # latents per token, along each side


def pack(z: Float[Tensor, "n c h w"]) -> Float[Tensor, "n tokens d"]:
    """Tokens by rows; in each the channels, of each channel its latents by rows."""
    return rearrange(z, "n c (h y) (w x) -> n (h w) (c y x)", y=PATCH, x=PATCH)


def unpack(tokens: Float[Tensor, "n tokens d"], size: tuple[int, int]) -> Float[Tensor, "n c h w"]:
    """The inverse of `pack`, for latents of that height and width."""
    return rearrange(tokens, "n (h w) (c y x) -> n c (h y) (w x)", h=size[0] // PATCH, y=PATCH, x=PATCH)


def places(size: tuple[int, int], like: Tensor) -> Float[Tensor, "tokens 3"]:
    """(0, row, column) of each token of latents of that height and width."""
    rows, columns = (torch.arange(float(side // PATCH)) for side in size)
    return torch.cartesian_prod(torch.zeros(1), rows, columns).to(like)
