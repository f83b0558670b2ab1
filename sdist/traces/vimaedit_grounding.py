"""Saliency and masks from recorded queries and keys."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from ..denoising.grounding import Focus, Grounding, Maps, Saliency
from ..hooks.attention import Attention
from ..hooks.layers import Layer
from ..regularizers.mask import unit_range
from .deviation import Deviation, deviations
from .kinds import Case

NEAR = 1e-5  # of a threshold, after scaling to 0..1: nearer cells may fall to either side by rounding


def compare(case: Case) -> dict[str, Deviation]:
    """Of the map after each iteration of the first step, of the running sums, and of masks at each threshold."""
    case.need("focus", "iterations", "gamma", "thresholds", "latent_size", "cross_size", "self_size", "heads", "scale")
    arrays = case.arrays("cross_q", "cross_k", "self_q", "self_k")
    return deviations(grounded(case.settings, arrays), arrays)


def grounded(case: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our quantities by their names in the trace."""
    settings, found = Grounding(iterations=case["iterations"], keep=case["gamma"], add_up=True), dict[str, list[Tensor]]()
    saliency, size = Saliency(settings, _focus(case, arrays)), tuple(case["latent_size"])
    for step in range(len(arrays["cross_q"])):
        source, target = (_attention(case, arrays, step, branch) for branch in (0, 1))
        if step == 0:
            found["iterations"] = _iterations(settings, saliency.focus, source, target)
        saliency.look(source, target, None, False)
        found.setdefault("saliency", []).append(saliency.whole[0])
        masks = [masks_at(saliency, size, t, arrays["masks"][step, i]) for i, t in enumerate(case["thresholds"])]
        found.setdefault("masks", []).append(torch.stack(masks))
    return {name: torch.stack(values) for name, values in found.items()}


def masks_at(saliency: Saliency, size: tuple[int, ...], threshold: float, recorded: Tensor) -> Tensor:
    """The mask (h, w) above a threshold; as recorded where the saliency is nearer to it than rounding tells."""
    settings = replace(saliency.settings, threshold=threshold)
    other = Saliency(settings, saliency.focus)
    other.maps = saliency.maps
    assert saliency.maps is not None
    return recorded_where_near(saliency.maps, threshold, other.masks((size[0], size[1])).edit[0, 0], recorded)


def recorded_where_near(maps: Maps, threshold: float, ours: Tensor, recorded: Tensor) -> Tensor:
    """Our mask (h, w), but the recorded one where the saliency is nearer to the threshold than rounding tells."""
    gaps = (unit_range(maps) - threshold).abs().amin(1, keepdim=True)
    near = F.interpolate(gaps, ours.shape, mode="nearest")[0, 0] < NEAR
    return torch.where(near, recorded.to(ours), ours)


def _iterations(settings: Grounding, focus: Focus, source: Attention, target: Attention) -> list[Tensor]:
    """(2, h, w) after each of 0 .. N iterations."""
    coarse = focus.coarse(source, target, None)
    maps = [[m + s.mean() for m in settings.refined(s, a)] for s, a in zip(coarse, (source, target), strict=True)]
    return [torch.cat(pair, 1)[0] for pair in zip(*maps, strict=True)]


def _focus(case: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Focus:
    rows = torch.zeros(2, 1, arrays["cross_k"].shape[-2])
    for branch, tokens in enumerate(case["focus"]):
        rows[branch, 0, tokens] = 1
    return Focus(*rows)


def _attention(case: Mapping[str, Any], arrays: Mapping[str, Tensor], step: int, branch: int) -> Attention:
    """One branch's queries and keys of one step; the sizes are those of levels of the latents."""

    def layers(kind: str) -> dict[Layer, tuple[Tensor, Tensor]]:
        level = case["latent_size"][0] // case[f"{kind}_size"][0]
        q, k = (rearrange(arrays[f"{kind}_{x}"][step, :, branch], "layer n d -> layer 1 n d") for x in "qk")
        shape = (level.bit_length() - 1, "mid", case["heads"], case["scale"])
        return {Layer(f"{kind}{i}", *shape): (q[i], k[i]) for i in range(len(q))}

    return Attention(layers("cross"), layers("self"), tuple(case["latent_size"]))
