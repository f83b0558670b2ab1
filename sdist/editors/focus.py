"""The words that an editor follows, as tokens of a prompt and as weights of a batch."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..edits.request import Prepared
from ..models.base import Backbone
from ..prompts import Word, token_indices


def with_tokens(
    model: Backbone, prompt: str, words: Sequence[Word], pieces: Literal["all", "last"] = "all"
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Words of a prompt, and the positions of their tokens; `pieces`: of a word that is split, see `token_indices`."""
    return tuple(word.text for word in words), tuple(token_indices(model.text.token_spans(prompt), words, pieces))


def focus_rows(model: Backbone, batch: Sequence[Prepared]) -> tuple[Float[Tensor, "b l"], Float[Tensor, "b l"]]:
    """1 at the tokens of the source's and of the target's words, else 0."""
    source, target = torch.zeros(2, len(batch), model.text.length, device=model.device)
    for row, prepared in enumerate(batch):
        source[row, list(prepared.source_tokens)] = 1
        target[row, list(prepared.tokens)] = 1
    return source, target
