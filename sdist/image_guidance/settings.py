"""Image guidance as a method's yaml sets it. ViMAEdit, arXiv 2410.10496, section 4.2; IP-Adapter, arXiv 2308.06721."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..edits.request import Prepared
from ..errors import UserError
from ..hooks.image_tokens import ImageTokens
from ..hooks.injection import check_layout
from ..models.base import Backbone
from ..prediction import Branch
from .catalogue import find_adapter
from .guide import Estimation, Guide, load_guide


@dataclass(frozen=True)
class ImageGuidance:
    """Beside its prompt the network reads a CLIP embedding: with the source prompt the image's own, with the target an estimate
    of the edited image's, with any other prompt zero.
    """

    adapter: str | None = None  # IP-Adapter: auto (the model's own), an alias, hub id, folder or file; null: no image guidance
    scale: float = 0.4  # weight of the image tokens; 0: no image guidance
    estimation: Estimation = "paper"  # of the target's embedding; released: texts rescaled to the image's norm first
    clip: str | None = None  # hub id or folder of a CLIP with both towers; null: the adapter's

    def __post_init__(self) -> None:
        if not self.scale >= 0:
            raise UserError(f"the scale of image guidance is at least 0, got {self.scale}")

    @property
    def is_on(self) -> bool:
        return self.adapter is not None and self.scale > 0

    def guide(self, model: Backbone) -> Guide:
        """What reads images. Raises UserError if it cannot be had, or does not fit the model."""
        check_layout(model.layout)
        source = find_adapter(self.adapter or "", model.name)
        if source is None:
            raise UserError(f"no IP-Adapter is known for {model.name}")
        if self.clip is not None:
            source = replace(source, clips=(self.clip,))
        guide = load_guide(source, model.device)
        guide.adapter.check(model, guide.where)
        return guide

    def hook(self, model: Backbone, batch: Sequence[Prepared], branches: Sequence[Branch]) -> ImageTokens:
        """What these branches read of each image."""
        guide = self.guide(model)
        image, target = guide.read(batch, self.estimation)
        by_prompt, zero = {"source": image, "target": target}, torch.zeros_like(image)
        rows = {branch: by_prompt.get(branch.prompt, zero) for branch in branches}
        return guide.adapter.hook([layer.name for layer in model.layout.layers("cross")], rows, self.scale)
