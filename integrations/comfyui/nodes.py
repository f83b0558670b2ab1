"""A model by name or path, and an edit of images with it. Images are (b, h, w, 3) and masks (b, h, w), both in 0..1."""

import json
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import sdist
from sdist.config.build import load_settings
from sdist.config.methods import shipped
from sdist.errors import UserError
from sdist.models.catalogue import MODELS, default_method

from .comfy_host import checkpoints, file_of, watcher

AUTO = "auto"  # the model's own method
TEXT = {"multiline": True, "default": ""}


class SdistModel:
    """Which model edits, and what is put on it. It is loaded with the first edit and stays in memory."""

    CATEGORY, FUNCTION = "sdist", "choose"
    RETURN_TYPES, RETURN_NAMES = ("SDIST_MODEL",), ("model",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, tuple]]:
        return {
            "required": {"model": ([*MODELS, *checkpoints()], {"default": "tinyworld"})},
            "optional": {
                "path": ("STRING", {"default": "", "tooltip": "hub id, folder or .safetensors file, in place of the above"}),
                "vae": ("STRING", {"default": "", "tooltip": "file, folder or hub id"}),
                "lora": ("STRING", {**TEXT, "tooltip": "FILE[:WEIGHT], one per line"}),
                "embedding": ("STRING", {**TEXT, "tooltip": "FILE[:WORD], one per line"}),
                "precision": (["auto", "fp32", "fp16", "bf16"], {"default": "auto"}),
            },
        }

    def choose(
        self, model: str, path: str = "", vae: str = "", lora: str = "", embedding: str = "", precision: str = "auto"
    ) -> tuple[dict[str, Any]]:
        settings = {
            "model": path.strip() or file_of("checkpoints", model),
            "vae": file_of("vae", vae.strip()) if vae.strip() else "",
            "lora": [file_of("loras", line) for line in lines_of(lora)],
            "embedding": [file_of("embeddings", line) for line in lines_of(embedding)],
            "precision": precision,
        }
        return (settings,)


class SdistEdit:
    """Edits every image of a batch. A mask says where; the mask that comes out is the method's last, or else that one."""

    CATEGORY, FUNCTION = "sdist", "edit"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "MASK", "STRING"), ("image", "mask", "run_card")
    OUTPUT_IS_LIST: ClassVar[tuple[bool, ...]] = (False, False, True)  # a card per image

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, tuple]]:
        return {
            "required": {
                "model": ("SDIST_MODEL",),
                "image": ("IMAGE",),
                "method": ([AUTO, *shipped("method")], {"default": AUTO, "tooltip": "auto: the model's own"}),
                "source": ("STRING", {**TEXT, "tooltip": "what the image shows"}),
                "target": ("STRING", {**TEXT, "tooltip": "what it should show instead, or for some methods what to do"}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**32 - 1}),
                "steps": ("INT", {"default": 0, "min": 0, "max": 10_000, "tooltip": "0: the method's"}),
            },
            "optional": {
                "mask": ("MASK",),
                "words": ("STRING", {"default": "", "tooltip": "that the mask follows, with commas; empty: what differs"}),
                "keep_background": ("BOOLEAN", {"default": False}),
                "output_size": (["edit", "source"], {"default": "edit"}),
                "crop": (["none", "auto", "mask"], {"default": "none"}),
                "settings": ("STRING", {**TEXT, "tooltip": "KEY=VALUE of the method's yaml, one per line"}),
            },
        }

    def edit(
        self, model: dict[str, Any], image: Tensor, method: str, source: str, target: str, seed: int, steps: int,
        mask: Tensor | None = None, words: str = "", keep_background: bool = False, output_size: str = "edit",
        crop: str = "none", settings: str = "",
    ) -> tuple[Tensor, Tensor, list[str]]:  # fmt: skip
        masks = masks_of(mask, len(image))
        method = default_method(model["model"]) if method == AUTO else method
        overrides = [*(f"{key}={json.dumps(value)}" for key, value in model.items() if value), *lines_of(settings)]
        editor = load_settings(method).editor
        prompts = {"instruction": target} if "instruction" in editor.reads else {"source": source, "target": target}
        show = watcher(len(image)) if editor.watchable else None
        results = [
            sdist.edit(
                pixels_of(one), **prompts, method=method, seed=seed, steps=steps or None, words=words_of(words),
                mask=None if where is None else where.cpu().numpy(), keep_background=keep_background,
                output_size=output_size, crop=crop, settings=overrides, on_step=show, progress=False,
            )
            for one, where in zip(image, masks, strict=True)
        ]  # fmt: skip
        made = torch.stack([image_tensor(result.image) for result in results])
        changed = torch.stack([mask_of(result, where) for result, where in zip(results, masks, strict=True)])
        return made, changed, [json.dumps(result.card, ensure_ascii=False) for result in results]


def masks_of(mask: Tensor | None, images: int) -> list[Tensor | None]:
    """The mask (h, w) of each image. Raises UserError unless there is one per image, or one for all."""
    if mask is None:
        return [None] * images
    if mask.ndim != 3 or len(mask) not in (1, images):
        raise UserError(f"mask is {tuple(mask.shape)}, must be (1, h, w), or ({images}, h, w) for this batch of images")
    return list(mask.expand(images, -1, -1))


def lines_of(text: str) -> list[str]:
    """Lines with something in them."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def words_of(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def pixels_of(image: Tensor) -> np.ndarray:
    """8-bit values of an image (h, w, 3) in 0..1."""
    return (image.cpu().float().clamp(0, 1) * 255).round().byte().numpy()


def image_tensor(image: Image.Image) -> Tensor:
    """(h, w, 3) in 0..1."""
    return torch.from_numpy(np.asarray(image, np.float32) / 255)


def mask_of(result: "sdist.Result", given: Tensor | None) -> Tensor:
    """The method's last mask, where it was edited, else the one that was given, else all: (h, w) of the result, in 0..1."""
    width, height = result.image.size
    whole = (0, 0, width, height)
    left, top, right, bottom = map(round, whole if result.mask is None else result.composition.get("box", whole))
    own = given if result.mask is None else result.mask[0]
    mask = torch.zeros(height, width)
    mask[top:bottom, left:right] = 1.0 if own is None else resized(own, (bottom - top, right - left))
    return mask


def resized(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(h, w) at another height and width."""
    wide = mask.detach().cpu().float()[None, None]
    return F.interpolate(wide, size, mode="bilinear", align_corners=False)[0, 0].clamp(0, 1)
