"""Traces of parts of LIME: which tokens an instruction has, and attention with the penalty."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import log2
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..denoising.instructed import ROWS
from ..hooks.layers import Layer
from ..hooks.penalty import Penalty
from ..regions.tokens import by_piece
from ..taggers import Tagger, nltk_tagger
from .deviation import Deviation, deviations
from .kinds import Case


def compare(case: Case) -> dict[str, Deviation]:
    return {"lime_attention": _attention, "lime_words": _words}[case.kind](case)


def _attention(case: Case) -> dict[str, Deviation]:
    layers, effective = case.need("layers", "effective_tokens")
    recorded = case.arrays("mask", *(f"{part}.{name}" for name in layers for part in ("query", "key", "probabilities")))
    ours = dict[str, Tensor]()
    for name, settings in layers.items():
        ours |= probabilities(recorded, name, settings, effective)
    return deviations(ours, recorded)


def probabilities(
    recorded: Mapping[str, Tensor], name: str, settings: Mapping[str, Any], effective: Sequence[int]
) -> dict[str, Tensor]:
    """A layer's map at the recorded pixels, as the values of attention to unit vectors; and the region as the layer reads it."""
    query, key = recorded[f"query.{name}"], recorded[f"key.{name}"]
    side, tokens, rows = settings["side"], key.shape[2], len(key)
    finest = max(side, recorded["mask"].shape[0] // 2)
    layer = Layer(name, int(log2(finest // side)), "", query.shape[1], settings["scale"])
    values = torch.eye(tokens).expand(rows, query.shape[1], tokens, tokens)
    attend = partial(F.scaled_dot_product_attention, scale=settings["scale"])
    if not settings["regularized"]:
        return {f"probabilities.{name}": attend(query, key, values)[:, :, recorded[f"positions.{name}"]]}
    allowed = F.one_hot(torch.tensor(effective), tokens).amax(0)[None].bool()
    penalty = Penalty(ROWS, (layer.level,), recorded["mask"][None].bool(), allowed, (finest, finest))
    out = penalty.steering(layer, [slice(row, row + 1) for row in range(rows)])(query, key, values, attend)
    region = penalty.inside(layer)[0].view(side, side)
    return {f"probabilities.{name}": out[:, :, recorded[f"positions.{name}"]], f"region.{name}": region}


def _words(case: Case) -> dict[str, Deviation]:
    """How many instructions have other tokens, or other positions; tags too where nltk's tagger is installed."""
    (cases,) = case.need("cases")
    tokenizer, tagger = _tokenizer(case), nltk_tagger()
    found: dict[str, list[bool]] = {"tokens": [], "averaged_tokens": [], "effective_tokens": []}
    for one in cases:
        ids = tokenizer(one["instruction"]).input_ids
        tokens = by_piece(one["tokens"], _tagged(one["tags"]))
        found["tokens"].append([tokenizer.decode([i]).strip() for i in ids] == one["tokens"])
        found["averaged_tokens"].append(list(tokens.related) == one["averaged_tokens"])
        found["effective_tokens"].append(list(tokens.effective) == one["effective_tokens"])
        if tagger is not None:
            found.setdefault("tags", []).append(tagger(one["tokens"]) == one["tags"])
    return {name: Deviation(equal.count(False), equal.count(False) / len(equal)) for name, equal in found.items()}


def _tokenizer(case: Case) -> Any:
    from transformers import CLIPTokenizer

    (model,) = case.need("model")
    return CLIPTokenizer.from_pretrained(case.model or str(case.beside(model)), subfolder="tokenizer")


def _tagged(tags: list[str]) -> Tagger:
    """A tagger that gives the recorded tags."""
    return lambda _: tags
