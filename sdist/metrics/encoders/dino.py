"""DINO through transformers: class tokens and keys of images, in float32."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ...models.fingerprint import fingerprint
from ..profile import Profile
from .cache import Embeddings, image_key
from .preprocessing import dino_pixels, structure_pixels
from .pretrained import load_network
from .record import Record, record


class Dino:
    """A vision transformer by hub id or folder."""

    def __init__(self, source: str, device: str = "auto", cache: Path | None = None) -> None:
        self.source, self.model = source, load_network("ViTModel", source, device, add_pooling_layer=False)
        self.name, self._embed = f"{source} {fingerprint([self.model])}", Embeddings(cache)

    @property
    def record(self) -> Record:
        """What scores depend on."""
        return record(self.source, self.model, input=self._side, patch=self.model.config.patch_size)

    @property
    def _side(self) -> int:
        return int(self.model.config.image_size)

    def images(self, images: Sequence[Image.Image], profile: Profile) -> Float[Tensor, "n d"]:
        """The class token after the last normalization, of images of any size; the profile decides about the centre crop."""
        keys = [image_key(f"{self.name} {profile}", image) for image in images]
        return self._embed(images, keys, lambda batch: self._class_tokens(batch, profile))

    @torch.no_grad()
    def keys(self, images: Sequence[Image.Image], profile: Profile) -> Float[Tensor, "b tokens d"]:
        """The keys of the last layer, heads side by side, the class token first; of images of one size, never kept on disk."""
        pixels = torch.stack([structure_pixels(image, self._side, profile) for image in images]).to(self.model.device)
        hidden = self.model(pixels, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states[-2]
        layer = self.model.layers[-1]
        return layer.attention.k_proj(layer.layernorm_before(hidden)).cpu()

    @torch.no_grad()
    def _class_tokens(self, images: list[Image.Image], profile: Profile) -> Float[Tensor, "b d"]:
        pixels = torch.stack([dino_pixels(image, self._side, profile) for image in images])
        return self.model(pixels.to(self.model.device)).last_hidden_state[:, 0]
