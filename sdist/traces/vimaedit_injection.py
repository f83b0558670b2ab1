"""Alignment of prompts and injection of attention maps alone, replayed from recorded maps and prompts."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..denoising.alignment import Alignment, Tokens, refine, replace, stack
from ..hooks.injection import inject, inject_tokens
from ..models.text import PromptEncoder
from .deviation import Deviation, deviations
from .kinds import Case

SOURCE, TARGET = slice(2, 3), slice(3, 4)  # rows of the maps
FINEST = 32 * 32  # queries of the finest layers whose attention to the image is injected


def compare(case: Case) -> dict[str, Deviation]:
    """Of alignments, of positions of words, and of maps by step; a decision that differs counts as 1."""
    case.need("steps", "cross_text_replace", "self_replace", "cross_image_replace", "refine_pair", "replace_pair")
    text, maps = case.backbone().text, case.arrays("text", "self", "image")
    settings = case.settings
    ours, recorded = {}, dict(maps)
    for name, align in (("refinement", _refinement), ("replacement", _replacement), ("words", _words)):
        pairs = [align(text, pair) for pair in settings.get(name, ())]
        ours[name], recorded[name] = (torch.stack([pair[i] for pair in pairs]).float() for i in (0, 1))
    return deviations(ours | injected(settings, maps, text), recorded)


def injected(case: Mapping[str, Any], maps: Mapping[str, Tensor], text: PromptEncoder) -> dict[str, Tensor]:
    """The target row's maps at each step."""
    n = case["steps"]
    ends = {"text": int(case["cross_text_replace"] * (n + 1)), "self": int(case["self_replace"] * n)}
    ends |= dict.fromkeys(("image", "image_fine"), int(case["cross_image_replace"] * n))
    ways = {name: _whole if maps[name].shape[2] <= FINEST else _own for name in ("self", "image", "image_fine") if name in maps}
    pairs: dict[str, Callable[..., Alignment]] = {"refine": refine, "replace": partial(replace, released=True)}
    aligned = {name: align(*(Tokens.of(text, prompt) for prompt in case[f"{name}_pair"])) for name, align in pairs.items()}
    found = {f"refine_{name}": _by_step(way, maps[name], ends[name], n) for name, way in ways.items()}
    return found | {f"{name}_text": _by_step(partial(_aligned, a), maps["text"], ends["text"], n) for name, a in aligned.items()}


def _by_step(way: Callable[[Tensor], Tensor], maps: Tensor, end: int, steps: int) -> Tensor:
    return torch.stack([(way(maps) if k < end else maps)[TARGET][0] for k in range(steps)])


def _own(maps: Tensor) -> Tensor:
    return maps


def _whole(maps: Tensor) -> Tensor:
    keys = torch.eye(maps.shape[-1]).expand(*maps.shape[:2], -1, -1)
    return inject(SOURCE, TARGET, maps, keys, keys, _read)


def _aligned(alignment: Alignment, maps: Tensor) -> Tensor:
    keys = torch.eye(maps.shape[-1]).expand(*maps.shape[:2], -1, -1)
    return inject_tokens(SOURCE, TARGET, stack([alignment], maps.device), maps, keys, keys, _read)


def _read(maps: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention whose maps stand where its queries do: with values that are units, what comes out is a map."""
    return maps @ values


def _refinement(text: PromptEncoder, pair: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """For each target position, the source's that it is copied from, -1 for none: ours and as recorded."""
    carry, keep = refine(Tokens.of(text, pair["source"]), Tokens.of(text, pair["target"]))
    return torch.where(keep > 0, -1, carry.argmax(0)), torch.tensor(pair["copied_from"])


def _replacement(text: PromptEncoder, pair: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The matrix of a swap of words."""
    carry, _ = replace(Tokens.of(text, pair["source"]), Tokens.of(text, pair["target"]), released=True)
    recorded = torch.eye(len(carry))
    for position in pair["without_one_on_diagonal"]:
        recorded[position, position] = 0
    for source, target, weight in pair["entries"]:
        recorded[source, target] = weight
    return carry, recorded


def _words(text: PromptEncoder, one: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """1 at the positions of a word that stands between spaces letter for letter."""
    found = [i for word, tokens in Tokens.of(text, one["prompt"]).words() if word == one["word"] for i in tokens]
    rows = torch.zeros(2, text.length)
    rows[0, found], rows[1, one["tokens"]] = 1, 1
    return rows[0], rows[1]
