"""How large the gradients of an image's draws were so far, for filters that judge a draw by those before it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..diffusion import PerImage
from ..filters import Past


class PastDraws:
    """The SDs of the draws of each image of a run that count, on the host."""

    def __init__(self, images: int) -> None:
        self._sd: Float[Tensor, "images n"] = torch.empty(images, 0)  # nan behind the last of an image
        self._count = torch.zeros(images, dtype=torch.long)

    def before(self, images: Int[Tensor, " b"], sd: PerImage) -> Past:
        """What each of those draws comes after, also in the same round; draws of an image stand together, in their order."""
        order = torch.arange(len(images), device=images.device)
        earlier = (images[:, None] == images) & (order[:, None] > order)
        return torch.cat([self._sd[images.cpu()].to(sd), torch.where(earlier, sd, torch.nan)], 1)

    def add(self, images: Int[Tensor, " b"], sd: PerImage) -> None:
        """Draws that count, in their order."""
        column = self._count[images] + torch.arange(len(images)) - torch.searchsorted(images, images)
        missing = max([0, *(column + 1 - self._sd.shape[1]).tolist()])
        self._sd = torch.nn.functional.pad(self._sd, (0, missing), value=torch.nan)
        self._sd[images, column] = sd.to(self._sd)
        self._count += torch.bincount(images, minlength=len(self._count))
