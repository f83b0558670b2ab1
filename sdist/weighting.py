"""Timestep weights w(t) of losses."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, ones_like

from .diffusion import per_image
from .prediction import Draw

Weighting = Literal["uniform", "sigma2", "alpha_sigma2"]


def weight(name: Weighting, draw: Draw) -> Float[Tensor, "b 1 1 1"]:
    """1, sigma^2 = 1 - alpha_bar (DreamFusion, SBP) or alpha sigma^2 (Fantasia3D), one value an image."""
    values = {
        "uniform": ones_like(draw.sigma),
        "sigma2": draw.sigma**2,
        "alpha_sigma2": draw.alpha * draw.sigma**2,
    }
    return per_image(values[name])
