"""What differs between two prompts, its nouns, and the tokens of those nouns. LUSD, arXiv 2503.11054, section 6.1."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from .errors import UserError, unknown

NOUNS = {"NN", "NNS"}
ARTICLES, DETERMINER, PREPOSITION = {"a", "an", "the"}, "DT", "IN"
WORD = re.compile(r"\w+")

Difference = Literal["paper", "released"]
Tagger = Callable[[Sequence[str]], list[str]]  # words -> part-of-speech tags (Penn Treebank)


@dataclass(frozen=True)
class Word:
    """A word of a prompt: characters [start, end)."""

    text: str
    start: int
    end: int


def words(prompt: str) -> list[Word]:
    r"""The runs of \w in the prompt."""
    return [Word(m.group(), m.start(), m.end()) for m in WORD.finditer(prompt)]


def differing(source: str, target: str, rule: Difference = "paper") -> list[int]:
    """Indices of the target's words that differ from the source, by one of RULES."""
    return RULES[rule](*([word.text for word in words(prompt)] for prompt in (source, target)))


def _between_prefix_and_suffix(source: list[str], target: list[str]) -> list[int]:
    """What is left of the target without the longest common suffix and the longest common prefix, whatever the case (paper)."""
    source, target = ([word.casefold() for word in prompt] for prompt in (source, target))
    suffix = _common(source[::-1], target[::-1])
    prefix = _common(source[: len(source) - suffix], target[: len(target) - suffix])
    return list(range(prefix, len(target) - suffix))


def _position_by_position(source: list[str], target: list[str]) -> list[int]:
    """Without the longest common suffix, the words that are not the source's word at the same position (release).

    Case counts, and the source is compared as a whole: in "a bus" and "a bus and a bus" only "and" differs.
    """
    rest = target[: len(target) - _common(source[::-1], target[::-1])]
    return [i for i, word in enumerate(rest) if source[i : i + 1] != [word]]


RULES: dict[Difference, Callable[[list[str], list[str]], list[int]]] = {
    "paper": _between_prefix_and_suffix,
    "released": _position_by_position,
}


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def differing_nouns(source: str, target: str, rule: Difference = "paper", tagger: Tagger | None = None) -> list[Word]:
    """The nouns of what differs; if it does not end in a noun, an article or a preposition, up to the next noun.

    Every determiner is an article, in the release only "a", "an" and "the" as they stand here.
    """
    indices = differing(source, target, rule)
    if not indices:
        return []
    target_words = words(target)
    tags = (tagger or default_tagger()[1])([word.text for word in target_words])
    last = indices[-1]
    article = tags[last] == DETERMINER if rule == "paper" else target_words[last].text in ARTICLES
    if not article and tags[last] not in {*NOUNS, PREPOSITION}:
        following = range(last + 1, len(tags))
        until = next((i for i in following if tags[i] in NOUNS), None)
        indices += [] if until is None else range(last + 1, until + 1)
    return [target_words[i] for i in indices if tags[i] in NOUNS]


def named_words(target: str, named: Sequence[str]) -> list[Word]:
    """The user's own words as they stand in the target, phrases word by word. Raises UserError for one that is not there."""
    have = words(target)
    matches: list[Word] = []
    for phrase in named:
        parts = [w.text.casefold() for w in words(phrase)]
        starts = [i for i in range(len(have)) if parts == [w.text.casefold() for w in have[i : i + len(parts)]]]
        if not parts or not starts:
            raise unknown("word", phrase, [w.text for w in have], f"the target prompt {target!r}")
        matches += [w for i in starts for w in have[i : i + len(parts)]]
    return sorted(set(matches), key=lambda w: w.start)


def token_indices(spans: Sequence[tuple[int, int]], chosen: Sequence[Word], pieces: Literal["all", "last"]) -> list[int]:
    """Positions of the tokens of those words; of a word that is split into several, all or only the last (release)."""
    indices = []
    for word in chosen:
        tokens = [i for i, (start, end) in enumerate(spans) if start < end and start < word.end and end > word.start]
        if not tokens:
            raise UserError(f"the tokenizer gives no token for the word {word.text!r}")
        indices += tokens if pieces == "all" else tokens[-1:]
    return sorted(set(indices))


@cache
def default_tagger() -> tuple[str, Tagger]:
    """("nltk", tagger) if its data is installed, else ("textblob", TextBlob's PatternTagger, which downloads nothing)."""
    perceptron = nltk_tagger()
    return ("textblob", pattern_tags) if perceptron is None else ("nltk", perceptron)


def nltk_tagger() -> Tagger | None:
    """nltk's averaged perceptron, which the paper uses; None if its data is not installed."""
    from nltk.tag import PerceptronTagger

    try:
        perceptron = PerceptronTagger()
    except LookupError:
        return None
    return lambda ws: [tag for _, tag in perceptron.tag(list(ws))]


def pattern_tags(ws: Sequence[str]) -> list[str]:
    """PatternTagger splits some words (it's -> it + 's); a word gets the tag of its first piece."""
    from textblob.taggers import PatternTagger

    tagged = PatternTagger().tag(" ".join(ws), tokenize=False)
    if len(tagged) != len(ws):
        return [(PatternTagger().tag(word, tokenize=False) or [(word, "NN")])[0][1] for word in ws]
    return [tag for _, tag in tagged]
