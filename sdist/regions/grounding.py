"""The region of ViMAEdit's grounding: attention to the words, spread several times (arXiv 2410.10496, section 4.3)."""

from dataclasses import dataclass

from ..registry import REGIONS
from .attention import AttentionRegion


@REGIONS.register("grounding")
@dataclass(frozen=True)
class GroundingRegion(AttentionRegion):
    """Cells whose cross-attention, spread along self-attention, keep s + (1 - keep) A s, reaches a threshold."""

    iterations: int = 5
    keep: float = 0.5
