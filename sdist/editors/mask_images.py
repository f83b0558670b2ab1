"""The mask images of a batch as tensors, 1 where the edit may happen."""

from collections.abc import Sequence

from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..diffusion import Latents, size_of
from ..edits.request import Prepared
from ..files.images import to_pixels
from ..models.base import Backbone
from ..models.inpainting import Inpainting


def mask_pixels(masks: Sequence[Image.Image]) -> Float[Tensor, "b 1 height width"]:
    """Grey images of one size, in 0..1."""
    return (to_pixels([mask.convert("RGB") for mask in masks])[:, :1] + 1) / 2


def condition_of(
    model: Backbone, batch: Sequence[Prepared], pixels: Float[Tensor, "b 3 height width"]
) -> Float[Tensor, "b k h w"] | None:
    """What an inpainting model reads of images and their masks; None for every other model."""
    if not isinstance(model, Inpainting):
        return None
    return model.condition(pixels, mask_pixels([p.mask or Image.new("L", p.image.size, 255) for p in batch]).to(pixels))


def mask_rows(batch: Sequence[Prepared], like: Latents) -> Float[Tensor, "b 1 h w"] | None:
    """Averaged over each latent; an image without a mask may change everywhere. None if no image has one."""
    if all(p.mask is None for p in batch):
        return None
    grey = [p.mask or Image.new("L", p.image.size, 255) for p in batch]
    return F.interpolate(mask_pixels(grey), size_of(like), mode="area").to(like)
