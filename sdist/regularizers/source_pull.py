"""A pull to the source. LUSD, Chinchuthakun et al. 2025, arXiv 2503.11054, section 3.2."""

from dataclasses import dataclass

from ..diffusion import Latents
from ..errors import UserError
from ..prediction import Prediction
from ..registry import REGULARIZERS
from .base import Regularizer


@REGULARIZERS.register("source_pull")
@dataclass(frozen=True)
class SourcePull(Regularizer):
    """(1 - weight) g + weight (z - z_src); in LUSD it comes after the mask, so that the pull acts everywhere."""

    weight: float = 0.02  # lambda, 0..1

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise UserError(f"regularizer source_pull: weight must be within 0..1, got {self.weight}")

    def __call__(self, gradient: Latents, p: Prediction) -> Latents:
        return (1 - self.weight) * gradient + self.weight * (p.latents - p.edit.source)
