"""How a target prompt's cross-attention is made of a source prompt's. Prompt-to-Prompt, arXiv 2208.01626, section 3.2.

An alignment is the pair (carry, keep) of one image, see hooks/injection.py: target token j gets sum_i p_source[i] carry[i, j] and
keep[j] of its own attention.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..hooks.injection import TokenMap
from ..models.text import PromptEncoder

Alignment = tuple[Float[Tensor, "source target"], Float[Tensor, " target"]]


@dataclass(frozen=True)
class Tokens:
    """A prompt as the network reads it; a token's span is empty for marks and padding."""

    prompt: str
    ids: Sequence[int]
    spans: Sequence[tuple[int, int]]  # the characters [start, end) of the prompt that each token stands for

    @staticmethod
    def of(text: PromptEncoder, prompt: str) -> "Tokens":
        """Raises UserError for a prompt that the encoder does not hold."""
        return Tokens(text.plain(prompt), text.token_ids(prompt), text.token_spans(prompt))

    @property
    def count(self) -> int:
        """Tokens before the padding, the mark at the end included."""
        return max((i for i, (start, end) in enumerate(self.spans) if start < end), default=0) + 2

    def words(self) -> list[tuple[str, list[int]]]:
        """The prompt's words, what stands between spaces, with the positions of their tokens."""
        matches = [(match.group(), match.span()) for match in re.finditer(r"\S+", self.prompt)]
        return [(word, self._within(word, *span)) for word, span in matches]

    def _within(self, word: str, start: int, end: int) -> list[int]:
        within = [i for i, (a, b) in enumerate(self.spans) if a < b and a < end and b > start]
        if not within:
            raise UserError(f"the tokenizer gives no token for the word {word!r}")
        return within


def refine(source: Tokens, target: Tokens) -> Alignment:
    """A token that the source has too gets the source's attention, any other keeps its own.

    Which tokens belong together is their longest common subsequence; positions past the target's end belong to themselves.
    """
    length = len(target.ids)
    carry, keep = torch.zeros(length, length), torch.ones(length)
    pairs = counterparts(source.ids[: source.count], target.ids[: target.count])
    for i, j in [*pairs, *((j, j) for j in range(target.count, length))]:
        carry[i, j], keep[j] = 1.0, 0.0
    return carry, keep


def counterparts(source: Sequence[int], target: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs (i, j) of a longest common subsequence: the global alignment where a gap costs nothing and a match gains 1.

    Of several, the one that reading from the end finds if it skips a target's token where it can, else a source's.
    """
    best = torch.zeros(len(source) + 1, len(target) + 1, dtype=torch.long).tolist()
    for i, a in enumerate(source):
        for j, b in enumerate(target):
            best[i + 1][j + 1] = best[i][j] + 1 if a == b else max(best[i][j + 1], best[i + 1][j])
    pairs, i, j = [], len(source), len(target)
    while i and j:
        if best[i][j] == best[i][j - 1]:
            j -= 1
        elif best[i][j] == best[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def replace(source: Tokens, target: Tokens, released: bool = False) -> Alignment:
    """All attention is the source's, word by word: a word that was put in the place of another gets that one's.

    Where the two have as many tokens these go in pairs, else each token of the target's word gets an equal share of all of the
    source's. All other positions follow in their order, the padding too. In the release, what follows the last such word gets the
    attention of the same position, which is another token's where the words had unequally many.
    """
    (before, after), length = (source.words(), target.words()), len(target.ids)
    if len(before) != len(after):
        raise UserError(
            f"words can only be replaced one by one, but {source.prompt!r} has {len(before)} words and {target.prompt!r} has "
            f"{len(after)}; set mapping to refine"
        )
    swapped = [(rows, columns) for (word, rows), (other, columns) in zip(before, after, strict=True) if word != other]
    carry, start, shift = torch.zeros(length, length), 0, 0
    for rows, columns in swapped:
        _follow(carry, range(start, columns[0]), shift)
        share = torch.eye(len(rows)) if len(rows) == len(columns) else torch.tensor(1 / len(columns))
        carry[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = share
        start, shift = columns[-1] + 1, shift + len(rows) - len(columns)
    if released:  # which ends where the source's positions do, and leaves the target's last ones without attention
        _follow(carry, range(start, min(length, length - shift)), 0)
    else:
        _follow(carry, range(start, length), shift)
    return carry, torch.zeros(length)


def _follow(carry: Float[Tensor, "source target"], columns: range, shift: int) -> None:
    """These target tokens get the attention of the source's, `shift` places later; past the end, that of the last."""
    for j in columns:
        carry[min(j + shift, len(carry) - 1), j] = 1.0


def reweight(alignment: Alignment, tokens: Sequence[int], factor: float) -> Alignment:
    """The same with the attention to some target tokens times a factor."""
    weights = torch.ones(len(alignment[1]))
    weights[list(tokens)] = factor
    return alignment[0] * weights, alignment[1] * weights


def stack(alignments: Sequence[Alignment], device: torch.device) -> TokenMap:
    """Those of several images."""
    carry, keep = (torch.stack(parts).to(device) for parts in zip(*alignments, strict=True))
    return TokenMap(carry, keep)
