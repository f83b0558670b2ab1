"""A mask from clusters of features: LIME's segments for score distillation. Simsar et al. 2025, arXiv 2312.09256, section 4.1."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from ..draws import DrawKey
from ..hooks.localization import Localization, LocalizationRecorder
from ..prediction import TARGET, Branch, Hook, Prediction
from ..regions.base import at_least_one
from ..regions.kmeans import kmeans
from ..regions.segments import attention_by, features_of, holding, strongest
from ..registry import REGULARIZERS
from .mask import AveragedMask, Mask


@REGULARIZERS.register("cluster_mask")
@dataclass(frozen=True, kw_only=True)
class ClusterMask(AveragedMask):
    """M = 1 on the clusters of features that hold one of the cells which the noun tokens look at most, else 0.

    Features and attention are those of the target's prediction. An image without noun tokens is not masked.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"words", "mask"})

    clusters: int = 8
    points: int = 10  # cells with the most attention
    levels: tuple[int, ...] = (0, 1, 2)  # features and attention at 1 / 2^level of the latent's side, where there are any

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(self, "clusters", "points")

    @property
    def branches(self) -> tuple[Branch, ...]:
        return (TARGET,)

    @property
    def hooks(self) -> tuple[Hook, ...]:
        return (LocalizationRecorder(TARGET, TARGET, tuple(self.levels)),)

    def newest(self, p: Prediction) -> Mask:
        seen: Localization = p.recorded[self.hooks[0]]
        focus = p.edit.focus / p.edit.focus.sum(1, keepdim=True).clamp(min=1)
        attention = attention_by(seen, focus[..., None], seen.size)
        return torch.stack([self.segments(seen, row, attention[row], key) for row, key in enumerate(p.draw.keys)]).to(p.latents)

    def segments(self, seen: Localization, row: int, attention: Tensor, key: DrawKey) -> Bool[Tensor, "1 h w"]:
        """Those of one image, at the latents' resolution."""
        found = kmeans(features_of(seen, row, seen.size), self.clusters, key.generator("kmeans"))
        return holding(found.labels, strongest(attention, min(self.points, attention.numel())))[None]

    def applies(self, p: Prediction) -> Bool[Tensor, " b"]:
        return p.edit.focus.any(1)
