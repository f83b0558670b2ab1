"""CLIP through transformers: embeddings of images and texts, in float32."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ...errors import UserError
from ...models.catalogue import TINYWORLD
from ...models.fingerprint import fingerprint
from ..profile import Profile
from .cache import Embeddings, image_key, text_key
from .preprocessing import clip_pixels
from .pretrained import load_network, load_pretrained
from .record import Record, record

EMBEDDED = {"tinyworld": str(TINYWORLD / "clip")}  # the only CLIP that the package carries


class Clip:
    """A CLIP model by hub id or folder, or "tinyworld", the embedded one. Embeddings are projected and not normalized.

    The published codes differ in precision: LUSD's runs in float16 on CUDA, which moves a cosine by up to about 1e-3.
    """

    def __init__(self, source: str, device: str = "auto", cache: Path | None = None) -> None:
        self.id, source = source, EMBEDDED.get(source, source)
        self.model = load_network("CLIPModel", source, device)
        self.tokenizer = load_pretrained("CLIPTokenizer", source)
        self.name, self._embed = f"{source} {fingerprint([self.model])}", Embeddings(cache)

    def images(self, images: Sequence[Image.Image], profile: Profile) -> Float[Tensor, "n d"]:
        """Embeddings of images of any size; the profile decides about a pixel of the centre crop."""
        keys = [image_key(f"{self.name} {profile}", image) for image in images]
        return self._embed(images, keys, lambda batch: self._embed_images(batch, profile))

    def texts(self, texts: Sequence[str], cut: bool = False) -> Float[Tensor, "n d"]:
        """Embeddings of texts. Raises UserError if one is beyond the model's limit and may not be cut."""
        for text in () if cut else texts:
            self._check_length(text)
        return self._embed(texts, [text_key(self.name, text) for text in texts], self._embed_texts)

    @property
    def record(self) -> Record:
        """What scores depend on."""
        return record(self.id, self.model, input=self.model.config.vision_config.image_size, tokens=self._limit)

    @property
    def _limit(self) -> int:
        return int(self.model.config.text_config.max_position_embeddings)

    def _check_length(self, text: str) -> None:
        length = len(self.tokenizer(text).input_ids)
        if length > self._limit:
            raise UserError(f"description has {length} tokens, this CLIP reads {self._limit} (two mark its ends): {text[:60]!r}")

    @torch.no_grad()
    def _embed_images(self, images: list[Image.Image], profile: Profile) -> Float[Tensor, "b d"]:
        side = self.model.config.vision_config.image_size
        pixels = torch.stack([clip_pixels(image, side, profile) for image in images])
        return self.model.get_image_features(pixel_values=pixels.to(self.model.device)).pooler_output

    @torch.no_grad()
    def _embed_texts(self, texts: list[str]) -> Float[Tensor, "b d"]:
        tokens = self.tokenizer(texts, padding="max_length", max_length=self._limit, truncation=True, return_tensors="pt")
        tokens = tokens.to(self.model.device)
        return self.model.get_text_features(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
