"""LUSD as a plain loop, in the way of the released code: what the benchmark compares this package with, and nothing else.

One image at a time, two rows per call, explicit softmax matrices in every attention layer, all of them kept, a decision and a
log line read from the device at every attempt, a preview every 30 steps. Draws are ours, so that the results can be compared.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion import add_noise, size_of
from ..distillation.method import Method
from ..draws import DrawKey, RandomSampler
from ..filters import StdThreshold
from ..hooks.layers import Kind, Layer
from ..models.base import Backbone
from ..prediction import Edit, Text
from ..regularizers.attention_mask import AttentionMask
from ..regularizers.mask import unit_range
from ..regularizers.source_pull import SourcePull

PREVIEW_EVERY = 30  # accepted steps


@dataclass
class ReferenceRun:
    """What came out: latents (1, c, h, w), the draws of each step, and how often the network was called."""

    latents: Tensor
    attempts: list[int] = field(default_factory=list)
    evaluations: int = 0


class ExplicitAttention:
    """An attention processor that builds softmax(Q K^T s) and keeps it."""

    probabilities: Tensor  # of the last call

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (attn.head_to_batch_dim(x) for x in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)))
        self.probabilities = (q @ k.mT * attn.scale).softmax(-1)
        return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(self.probabilities @ v)))


def edit(backbone: Backbone, method: Method, one: Edit, identity: tuple[int, str]) -> ReferenceRun:
    """Edits one image with LUSD's parts as `method` sets them; the backbone must have `explicit_attention`."""
    mask_of, source_pull = cast(tuple[AttentionMask, SourcePull], tuple(method.regularizers.values()))
    accept = cast(StdThreshold, method.filter)
    z, average = one.source.clone(), None
    text = Text.cat([one.text["target"], one.text["source"]])
    run = ReferenceRun(z)
    for k in range(method.steps):
        for attempt in range(accept.max_attempts):
            key = DrawKey(*identity, k, attempt)
            gradient = difference(backbone, method, z, text, key)
            run.evaluations += 1
            sd = gradient.std().item()
            if sd >= accept.threshold * accept.decay**attempt:
                break
        newest = dense_map(backbone, mask_of.cross_level, mask_of.self_level, one.focus, size_of(z))
        average = newest if average is None else (1 - mask_of.momentum) * average + mask_of.momentum * newest
        beta = k / method.steps
        masked = gradient * (beta * average + 1 - beta) if one.focus.any() else gradient
        pulled = (1 - source_pull.weight) * masked + source_pull.weight * (z - one.source)
        gamma = method.gamma(torch.tensor([k / max(1, method.steps - 1)])).item()
        z = z - method.optimizer.step_size(z) * gamma * pulled / pulled.std()
        run.attempts.append(attempt + 1)
        if (k + 1) % PREVIEW_EVERY == 0:
            backbone.decode(z)
    run.latents = z
    return run


def difference(backbone: Backbone, method: Method, z: Tensor, text: Text, key: DrawKey) -> Tensor:
    """Of the predictions for the target and the source, in one call."""
    timed = replace(key, attempt=key.attempt if cast(StdThreshold, method.filter).redraw_timestep else 0)
    t = method.timesteps.at(timed, method.steps, backbone.last_timestep)
    noise = RandomSampler().noise(key, z.shape[1:])[None].to(backbone.device)
    times = torch.tensor([t, t], device=backbone.device)
    z_t = add_noise(z, noise, *backbone.scales(times[:1], size_of(z)))
    eps = backbone.estimate(z_t.repeat(2, 1, 1, 1), times, text).eps
    gradient = eps[:1] - eps[1:]
    if not bool(gradient.isfinite().all()):
        raise FloatingPointError(f"the plain loop has a gradient that is not finite: step {key.step}, timestep {t}")
    return gradient


def explicit_attention(backbone: Backbone) -> None:
    """Sets the network up as the released code does: explicit attention everywhere, the memory format left alone."""
    backbone.arrange(torch.contiguous_format)
    backbone.denoiser.set_attn_processor({name: ExplicitAttention() for name in backbone.denoiser.attn_processors})


def dense_map(backbone: Backbone, cross_level: int, self_level: int, focus: Tensor, size: tuple[int, int]) -> Tensor:
    """The refined map of the kept matrices of the target's row, (1, 1, h, w) in 0..1."""
    kept = defaultdict[str, list[Tensor]](list)
    processors = backbone.denoiser.attn_processors
    levels: dict[Kind, int] = {"cross": cross_level, "self": self_level}
    for kind, level in levels.items():
        for layer in backbone.layout.layers(kind):
            if layer.level == level:
                kept[kind].append(_of_target(processors[f"{layer.name}.processor"].probabilities, layer))
                grid = layer.size(*size)
        if kind == "cross":
            tokens = focus[0].bool()
            raw = torch.stack(kept[kind]).mean((0, 1))[:, tokens].mean(-1)
            raw = raw.reshape(1, 1, *grid)
    column = F.interpolate(raw, grid, mode="bicubic").reshape(-1, 1)
    refined = torch.stack(kept["self"]).mean((0, 1)) @ column
    resized = F.interpolate(refined.reshape(1, 1, *grid), size, mode="bicubic")
    return unit_range(resized)


def _of_target(probabilities: Tensor, layer: Layer) -> Tensor:
    """(heads, queries, keys) of the first of the two rows; in float32, since means in half precision can make a map flat."""
    return probabilities[: layer.heads].float()
