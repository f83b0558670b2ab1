"""What a network says of two branches with injected attention and image tokens, replayed; and where those tokens come from."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..denoising.alignment import Tokens, refine, stack
from ..denoising.two_branch import InjectionSteps
from ..hooks.image_tokens import ImageTokens, SharedAttention
from ..hooks.injection import Injection, TokenMap
from ..image_guidance.catalogue import find_adapter
from ..image_guidance.guide import Guide, estimate, load_guide
from ..models.base import Backbone
from ..prediction import NULL, SOURCE_NULL, SOURCE_SOURCE, TARGET, Hook, call
from .deviation import Deviation, deviations
from .kinds import Case
from .trace import image_of, texts_of

ROWS = (SOURCE_NULL, NULL, SOURCE_SOURCE, TARGET)
LEVEL = 1  # of the finest layers whose attention to the image is injected: half the latents' side


def compare(case: Case) -> dict[str, Deviation]:
    """Of the predictions before guidance, and of embeddings and tokens where they were recorded."""
    if case.kind == "vimaedit_network":
        case.need("timestep", "steps", "image_scale", "cross_text_replace", "self_replace", "cross_image_replace")
        model, arrays = case.loaded("z", "step", "eps", "image_rows")
        guide = guide_of(case, model)
        return deviations({"eps": predictions(case.settings, arrays, model, guide)}, arrays)
    case.need("timestep", "scales")
    model, arrays = case.loaded("image", "image_rows")
    guide = guide_of(case, model)
    return deviations(embeddings(case.settings, arrays, guide) | forwards(case.settings, arrays, model, guide), arrays)


def guide_of(case: Case, model: Backbone) -> Guide:
    """The adapter and the CLIP beside the trace."""
    source = find_adapter(str(case.beside(case.settings.get("ip_adapter") or "ip_adapter")), model.name)
    assert source is not None
    return load_guide(source, model.device)


def embeddings(case: Mapping[str, Any], arrays: Mapping[str, Tensor], guide: Guide) -> dict[str, Tensor]:
    """From the image and the prompts, by their names in the trace."""
    image = guide.clip.images([image_of(arrays)], "clean")
    source, target = (guide.clip.texts([case[name]]) for name in ("source_prompt", "target_prompt"))
    zero, found = torch.zeros_like(image), {"image_embed": image, "text_embed": torch.cat([source, target])}
    for way in ("released", "paper"):
        found[f"target_{way}"] = estimate(image, source, target, way)
    found["image_rows"] = torch.cat([zero, image, zero, found["target_released"]])
    found["image_rows_paper"] = torch.cat([zero, zero, image, found["target_paper"]])
    return found | {"ip_tokens": guide.adapter.tokens(found["image_rows"].to(guide.clip.model.device))}


@torch.no_grad()
def forwards(case: Mapping[str, Any], arrays: Mapping[str, Tensor], model: Backbone, guide: Guide) -> dict[str, Tensor]:
    """Predictions with image tokens alone."""
    ways = {f"eps_scale_{i}": ("image_rows", scale) for i, scale in enumerate(case["scales"])}
    ways["eps_paper"] = ("image_rows_paper", case["scales"][0])
    chosen = {name: way for name, way in ways.items() if name in arrays}
    return {n: _rows(case, arrays, model, [_images(arrays[rows], guide, model, scale)]) for n, (rows, scale) in chosen.items()}


@torch.no_grad()
def predictions(case: Mapping[str, Any], arrays: Mapping[str, Tensor], model: Backbone, guide: Guide) -> Tensor:
    """At each recorded step: (step, row, c, h, w)."""
    images = _images(arrays["image_rows"], guide, model, case["image_scale"])
    tokens = _alignment(case, model)
    return torch.stack([_rows(case, arrays, model, _hooks(case, int(k), tokens, images)) for k in arrays["step"]])


def _hooks(case: Mapping[str, Any], k: int, tokens: TokenMap, images: ImageTokens) -> list[Hook]:
    """Those of step k."""
    until = InjectionSteps.of(case["steps"], case["cross_text_replace"], case["self_replace"], case["cross_image_replace"], LEVEL)
    injection = Injection(SOURCE_SOURCE, TARGET, tokens if k < until.text else None, LEVEL if k < until.self else None)
    shared = SharedAttention(SOURCE_SOURCE, TARGET, LEVEL) if k < until.image else None
    return [injection, replace(images, shared=shared)]


def _alignment(case: Mapping[str, Any], model: Backbone) -> TokenMap:
    source, target = (Tokens.of(model.text, case[name]) for name in ("source_prompt", "target_prompt"))
    return stack([refine(source, target)], model.device)


def _images(rows: Tensor, guide: Guide, model: Backbone, scale: float) -> ImageTokens:
    layers = [layer.name for layer in model.layout.layers("cross")]
    return guide.adapter.hook(layers, dict(zip(ROWS, rows.split(1), strict=True)), scale)


def _rows(case: Mapping[str, Any], arrays: Mapping[str, Tensor], model: Backbone, hooks: list[Any]) -> Tensor:
    """All four rows' predictions."""
    noisy = dict(zip(("source", "edit"), arrays["z"].split(1), strict=True))
    outputs = call(model, noisy, torch.tensor([case["timestep"]], device=model.device), texts_of(arrays), ROWS, hooks)
    return torch.cat([outputs.eps[row] for row in ROWS])
