"""Which tokens of an instruction say what is edited. LIME, Simsar et al., WACV 2025, arXiv 2312.09256, section 4.

Related tokens make the map that finds the region, effective tokens may be looked at inside it. Paper: both are all but the mark
at the start, stop words and padding; here words are judged, then all their pieces are taken, and punctuation is effective only.
Release: pieces are judged one by one, and those that a tagger calls verbs are effective only.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..prompts import words
from ..taggers import Tagger
from .stop_words import STOP_WORDS

TokenRule = Literal["paper", "released"]


@dataclass(frozen=True)
class Tokens:
    """Positions of an instruction's tokens, the mark at the start being 0. Without related ones there is no region."""

    related: tuple[int, ...]
    effective: tuple[int, ...]


def by_word(instruction: str, spans: Sequence[tuple[int, int]]) -> Tokens:
    """The paper's rule, from the characters [start, end) that each token stands for; marks and padding stand for none.

    The mark at the end counts only beside a word that says something.
    """
    positions = [i for i, (start, end) in enumerate(spans) if start < end]
    stop = [(w.start, w.end) for w in words(instruction) if (w.stem or w.text).lower() in STOP_WORDS]
    inside = [(w.start, w.end) for w in words(instruction)]
    effective = [i for i in positions if not _overlaps(spans[i], stop)]
    related = [i for i in effective if _overlaps(spans[i], inside)]
    if not related:
        return Tokens((), ())
    end = positions[-1] + 1
    return Tokens((*related, end), (*effective, end)) if end < len(spans) else Tokens(tuple(related), tuple(effective))


def by_piece(pieces: Sequence[str], tagger: Tagger) -> Tokens:
    """The release's rule, from the decoded tokens with both marks and without padding; the tagger sees all of them as words."""
    tags = tagger(pieces)
    effective = [i for i in range(1, len(pieces)) if pieces[i] not in STOP_WORDS]
    related = [i for i in effective if pieces[i] not in string.punctuation and not tags[i].startswith("VB")]
    return Tokens(tuple(related), tuple(effective))


def _overlaps(span: tuple[int, int], others: Sequence[tuple[int, int]]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in others)
