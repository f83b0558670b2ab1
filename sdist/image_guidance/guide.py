"""From images and prompts to embeddings that an adapter reads: the source image's, and an estimate of the edited one's."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ..edits.request import Prepared
from ..errors import UserError
from ..metrics.encoders.clip import Clip
from ..models.catalogue import is_cached, is_folder
from ..models.fingerprint import fingerprint
from ..prompts import parse_weights
from .adapter import Adapter, read_adapter
from .catalogue import Source, fetch

Estimation = Literal["paper", "released"]
Embeddings = Float[Tensor, "b d"]


@dataclass(frozen=True, eq=False)
class Guide:
    """An adapter and the CLIP whose projected, not normalized embeddings it reads."""

    adapter: Adapter
    clip: Clip
    where: str  # the adapter's file
    fingerprint: str  # of both

    def read(self, batch: Sequence[Prepared], estimation: Estimation) -> tuple[Embeddings, Embeddings]:
        """`embeddings` of what is to be edited."""
        requests = [p.request for p in batch]
        return self.embeddings([p.image for p in batch], [r.source for r in requests], [r.target for r in requests], estimation)

    def embeddings(
        self, images: Sequence[Image.Image], sources: Sequence[str], targets: Sequence[str], estimation: Estimation
    ) -> tuple[Embeddings, Embeddings]:
        """Of the images, and estimated of the edited ones, on the model's device. Raises UserError for too long prompts.

        Prompts are read without their weights.
        """
        source, target = (self.clip.texts([parse_weights(prompt)[0] for prompt in some]) for some in (sources, targets))
        image = self.clip.images(images, "clean")
        device = self.clip.model.device
        return image.to(device), estimate(image, source, target, estimation).to(device)


def estimate(image: Embeddings, source: Embeddings, target: Embeddings, estimation: Estimation) -> Embeddings:
    """image + target - source (ViMAEdit, arXiv 2410.10496, eq. 7); released: the texts' rescaled to the image's norm first."""
    if estimation == "released":
        norm = image.norm(dim=1, keepdim=True)
        source, target = (norm * text / text.norm(dim=1, keepdim=True) for text in (source, target))
    return image + target - source


def load_guide(source: Source, device: torch.device) -> Guide:
    """Kept for the next edit. Raises UserError if something of it cannot be had, or the two do not belong together."""
    path = fetch(source)
    clip = next((c for c in source.clips if is_folder(c) or is_cached(c, "config.json")), source.clips[0])
    return _load(str(path), path.stat().st_mtime_ns, clip, str(device))


@lru_cache(maxsize=2)
def _load(path: str, written: int, clip: str, device: str) -> Guide:
    adapter = read_adapter(Path(path), device)
    try:
        encoder = Clip(clip, device)
    except UserError as error:
        raise UserError(
            f"image guidance needs a CLIP with both towers ({error}). Name another by the setting clip, or put one into a folder "
            "`clip` beside the adapter"
        ) from None
    width = encoder.model.config.projection_dim
    if width != adapter.width:
        raise UserError(
            f"the IP-Adapter {path} reads embeddings of {adapter.width}, the CLIP {clip} gives {width}: give the CLIP that it "
            "was trained with"
        )
    digest = sha256(Path(path).read_bytes() + fingerprint([encoder.model]).encode()).hexdigest()[:16]
    return Guide(adapter, encoder, path, f"{Path(path).name} {digest}")
