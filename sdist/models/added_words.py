"""Words of textual inversion: a file's vectors become tokens of the text encoder, all of them, named as diffusers names them.

Gal et al. 2022, arXiv 2208.01618.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from .added_files import AddedFile, load_added

UNNAMED = ("emb_params", "*")  # what other programs call vectors whose word is the file's name
ENCODERS = {"clip_l": "", "clip_g": "_2"}  # of a file for Stable Diffusion XL: which text encoder


def add_words(parts: Mapping[str, Any], files: Sequence[str]) -> None:
    """Adds the words of FILE[:WORD] to tokenizers and encoders. Raises UserError for what does not fit."""
    for text in files:
        word = AddedFile.read(text).note
        file, vectors = load_added(text, "embedding")
        for end, name, values in _split(file, vectors):
            own = file.stem if name in UNNAMED else name
            _add(parts, end, word or own, values.reshape(-1, values.shape[-1]), file)


def _split(file: Path, vectors: Mapping[str, Tensor]) -> list[tuple[str, str, Tensor]]:
    """For each encoder of which a file has vectors: the end of its component's name, the word, the vectors."""
    if vectors.keys() <= ENCODERS.keys():
        return [(ENCODERS[name], UNNAMED[0], values) for name, values in vectors.items()]
    if len(vectors) != 1:
        raise UserError(f"embedding {file} has {len(vectors)} tensors ({', '.join(sorted(vectors)[:3])}, ...): it must have one")
    ((name, values),) = vectors.items()
    return [("", name, values)]


def _add(parts: Mapping[str, Any], end: str, word: str, vectors: Float[Tensor, "n width"], file: Path) -> None:
    encoder, tokenizer = parts.get(f"text_encoder{end}"), parts.get(f"tokenizer{end}")
    table = None if encoder is None else encoder.get_input_embeddings().weight
    if encoder is None or tokenizer is None or table is None or table.shape[1] != vectors.shape[1]:
        width = "none" if table is None else f"one of width {table.shape[1]}"
        raise UserError(f"embedding {file} has vectors of width {vectors.shape[1]}, this model's text_encoder{end} is {width}")
    names = [word, *(f"{word}_{i}" for i in range(1, len(vectors)))]
    if taken := [name for name in names if name in tokenizer.get_vocab()]:
        raise UserError(f"embedding {file}: {taken[0]} is a token already; name another word, --embedding {file}:WORD")
    tokenizer.add_tokens(names)
    encoder.resize_token_embeddings(max(len(tokenizer), len(table)), mean_resizing=False)
    with torch.no_grad():
        rows = encoder.get_input_embeddings().weight
        rows[tokenizer.convert_tokens_to_ids(names)] = vectors.to(rows)
