"""Words of textual inversion that have several vectors: diffusers names them <word>, <word>_1, ...; prompts have <word> alone.

Gal et al. 2022, arXiv 2208.01618; the names are those of diffusers' load_textual_inversion.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

Value = TypeVar("Value")


def further_vectors(tokenizer: Any) -> dict[int, list[int]]:
    """The tokens that belong behind a token, of words that were added to a tokenizer."""
    added = tokenizer.get_added_vocab() if hasattr(tokenizer, "get_added_vocab") else {}
    found = {}
    for word, token in added.items():
        more = [added[name] for i in range(1, len(added)) if (name := f"{word}_{i}") in added]
        found.update({token: more} if more else {})
    return found


def with_all_vectors(tokenizer: Any, ids: Sequence[int], values: Sequence[Value]) -> list[tuple[int, Value]]:
    """Tokens with a value each, those that belong behind a token with its value; padding makes room as far as there is some."""
    more = further_vectors(tokenizer)
    pairs = [(token, value) for one, value in zip(ids, values, strict=True) for token in (one, *more.get(one, ()))]
    while len(pairs) > len(ids) and pairs[-1][0] == tokenizer.pad_token_id and _is_end(tokenizer, pairs[-2][0]):
        pairs.pop()
    return pairs


def _is_end(tokenizer: Any, token: int) -> bool:
    return token in (tokenizer.pad_token_id, tokenizer.eos_token_id)
