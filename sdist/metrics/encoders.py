"""CLIP and DINO through transformers: embeddings of pictures and texts, in float32, kept, also on disk if a folder is given."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer, ViTModel

from ..errors import UserError
from ..models.backbone import fingerprint
from ..models.catalogue import TINYWORLD, hub_problem, is_cached, is_folder
from ..models.devices import choose_device
from .cache import Embeddings, image_key, text_key
from .preprocessing import clip_pixels, dino_pixels, structure_pixels
from .profile import Profile

EMBEDDED = {"tinyworld": str(TINYWORLD / "clip")}  # the only CLIP that the package carries


class Clip:
    """A CLIP model by hub id or folder, or "tinyworld", the embedded one. Embeddings are projected and not normalized.

    The published codes differ in precision: LUSD's runs in float16 on CUDA, which moves a cosine by up to about 1e-3.
    """

    def __init__(self, source: str, device: str = "auto", cache: Path | None = None) -> None:
        source = EMBEDDED.get(source, source)
        self.model = _load(CLIPModel, source, device)
        self.tokenizer = _call(CLIPTokenizer, source)
        self.name, self._embed = f"{source} {fingerprint([self.model])}", Embeddings(cache)

    def images(self, images: Sequence[Image.Image], profile: Profile) -> Float[Tensor, "n d"]:
        """Embeddings of pictures of any size; the profile decides about a pixel of the centre crop."""
        keys = [image_key(f"{self.name} {profile}", image) for image in images]
        return self._embed(images, keys, lambda batch: self._embed_images(batch, profile))

    def texts(self, texts: Sequence[str], cut: bool = False) -> Float[Tensor, "n d"]:
        """Embeddings of texts; UserError for one beyond the model's limit, unless it may be cut."""
        for text in () if cut else texts:
            self._check_length(text)
        return self._embed(texts, [text_key(self.name, text) for text in texts], self._embed_texts)

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


class Dino:
    """A vision transformer by hub id or folder."""

    def __init__(self, source: str, device: str = "auto", cache: Path | None = None) -> None:
        self.model = _load(ViTModel, source, device, add_pooling_layer=False)
        self.name, self._embed = f"{source} {fingerprint([self.model])}", Embeddings(cache)

    @property
    def _side(self) -> int:
        return int(self.model.config.image_size)

    def images(self, images: Sequence[Image.Image], profile: Profile) -> Float[Tensor, "n d"]:
        """The class token after the last normalization, of pictures of any size; the profile decides about the centre crop."""
        keys = [image_key(f"{self.name} {profile}", image) for image in images]
        return self._embed(images, keys, lambda batch: self._class_tokens(batch, profile))

    @torch.no_grad()
    def keys(self, images: Sequence[Image.Image], profile: Profile) -> Float[Tensor, "b tokens d"]:
        """The keys of the last layer, heads side by side, the class token first; of pictures of one size, never kept on disk."""
        pixels = torch.stack([structure_pixels(image, self._side, profile) for image in images]).to(self.model.device)
        hidden = self.model(pixels, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states[-2]
        layer = self.model.layers[-1]
        return layer.attention.k_proj(layer.layernorm_before(hidden)).cpu()

    @torch.no_grad()
    def _class_tokens(self, images: list[Image.Image], profile: Profile) -> Float[Tensor, "b d"]:
        pixels = torch.stack([dino_pixels(image, self._side, profile) for image in images])
        return self.model(pixels.to(self.model.device)).last_hidden_state[:, 0]


def _load(cls: Any, source: str, device: str, **options: Any) -> Any:
    """A frozen model with all its weights, from safetensors."""
    model, report = _call(cls, source, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options)
    if report["missing_keys"]:
        raise UserError(f"evaluation model {source} is no {cls.__name__}: it lacks {sorted(report['missing_keys'])[0]}")
    return model.to(choose_device(device)).eval().requires_grad_(False)


def _call(cls: Any, source: str, **options: Any) -> Any:
    problem = None if is_folder(source) or is_cached(source, "config.json") else hub_problem(source)
    if problem:
        raise UserError(f"evaluation model {source}: {problem}. Give a folder or another id")
    try:
        return cls.from_pretrained(source, **options)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"evaluation model {source} cannot be loaded as {cls.__name__} with safetensors: {reason}") from None
