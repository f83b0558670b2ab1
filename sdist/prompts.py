"""What differs between two prompts, its nouns, and the tokens of those nouns. LUSD, arXiv 2503.11054, section 6.1."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import UserError, unknown
from .spelling import PLAIN, aligned, clean, key
from .taggers import Tagger, default_tagger

NOUNS = {"NN", "NNS"}
ARTICLES, DETERMINER, PREPOSITION = {"a", "an", "the"}, "DT", "IN"
CLITICS = "s|t|n|d|m|ll|re|ve|em"  # what stands behind an apostrophe and is no word of its own
WORD = re.compile(rf"(?<!\w)'(?:{CLITICS})'?(?!\w)|(?<!\w)n'(?!\w)|\w+(?:(?:'-|-'|['&-])\w+)*", re.IGNORECASE)
PIECE = re.compile(r"\w+")
ENDING = re.compile(rf"(?:n't|'(?:{CLITICS}))$", re.IGNORECASE)
PARENTHESIS = re.compile(r"\(|(?::\s*(\d+(?:\.\d*)?|\.\d+)\s*)?\)")  # one that closes with its number, as :1.3) has
ALONE = re.compile(rf"n't|'(?:{CLITICS})'?|n'", re.IGNORECASE)

Difference = Literal["paper", "released"]


@dataclass(frozen=True)
class Word:
    """A word of a prompt, in its one spelling: characters [start, end) of the prompt."""

    text: str
    start: int
    end: int

    @property
    def stem(self) -> str:
        """Without what an apostrophe hangs on to it: dog of dog's; nothing of a 's that stands alone."""
        text = self.text.translate(PLAIN)
        return "" if ALONE.fullmatch(text) else self.text[: len(ENDING.sub("", text))]


def parse_weights(prompt: str) -> tuple[str, list[float]]:
    """The prompt with blanks in place of the signs of weights such as (a cat:1.3), and the weight of each character, else 1.

    One within another is multiplied, as "cat" in ((cat:1.2) and dog:1.5). Parentheses without a number are text.
    """
    text, weights, opened = prompt, [1.0] * len(prompt), list[int]()
    for found in PARENTHESIS.finditer(prompt):
        first, last = found.span()
        if found[0] == "(":
            opened.append(first)
        elif opened and (start := opened.pop() + 1) and found[1]:
            text = text[: start - 1] + " " + text[start:first] + " " * (last - first) + text[last:]
            factor = float(found[1])
            weights[start:first] = [weight * factor for weight in weights[start:first]]
    return text, weights


def words(prompt: str, rule: Difference = "paper") -> list[Word]:
    r"""The words of the prompt: runs of \w, held together by single apostrophes and hyphens; for the release runs of \w alone.

    The number of a weight, as in (a cat:1.3), is none.
    """
    prompt, _ = parse_weights(prompt)
    if rule == "released":
        return [Word(m.group(), m.start(), m.end()) for m in PIECE.finditer(prompt)]
    found = [Word(clean(prompt[m.start() : m.end()]), m.start(), m.end()) for m in WORD.finditer(aligned(prompt))]
    return [word for word in found if any(c.isalnum() or c == "_" for c in word.text)]


def differing(source: str, target: str, rule: Difference = "paper") -> list[int]:
    """Indices of the target's words that differ from the source, by one of RULES."""
    return RULES[rule](*([word.text for word in words(prompt, rule)] for prompt in (source, target)))


def _between_prefix_and_suffix(source: list[str], target: list[str]) -> list[int]:
    """What is left of the target without the longest common suffix and the longest common prefix, whatever the case (paper)."""
    source, target = ([key(word) for word in prompt] for prompt in (source, target))
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
    target_words = words(target, rule)
    tags = _tags(target_words, tagger or default_tagger()[1])
    last = indices[-1]
    article = tags[last] == DETERMINER if rule == "paper" else target_words[last].text in ARTICLES
    if not article and tags[last] not in {*NOUNS, PREPOSITION}:
        following = range(last + 1, len(tags))
        until = next((i for i in following if tags[i] in NOUNS), None)
        indices += [] if until is None else range(last + 1, until + 1)
    return [target_words[i] for i in indices if tags[i] in NOUNS]


def _tags(found: Sequence[Word], tagger: Tagger) -> list[str]:
    """A tag for each word. Taggers know "dog 's" rather than "dog's", so the stem is tagged with what hangs on to it beside it.

    A hyphenated word that is not known as one is a noun if its last part is, or if that is a number (f-16).
    """
    pieces = [(word.stem, word.text[len(word.stem) :]) for word in found]
    flat = [piece for pair in pieces for piece in pair if piece]
    tagged, at, tags = tagger(flat), 0, []
    for stem, ending in pieces:
        tags.append(_tag(stem, tagged[at], tagger))
        at += bool(stem) + bool(ending)
    return tags


def _tag(stem: str, tag: str, tagger: Tagger) -> str:
    if not stem:
        return "RB" if tag in NOUNS else tag  # 's, 'n', n't
    first, *_, last = [stem, *stem.translate(PLAIN).split("-")]
    if first == last or tag in NOUNS:
        return tag
    return "NN" if last.isdigit() or tagger([last])[0] in NOUNS else tag


def named_words(target: str, named: Sequence[str], where: str = "the target prompt") -> list[Word]:
    """The user's own words as they stand in the target, or `where`, phrases word by word; a part of a hyphenated word too.

    Raises UserError for one that is not there.
    """
    have = [word for word in words(target) if word.stem]
    pieces = [p for p in words(target, "released") if any(w.start <= p.start and p.end <= w.start + len(w.stem) for w in have)]
    matches: list[Word] = []
    for phrase in named:
        places = _places(phrase, have, "paper") or _places(phrase, pieces, "released")
        if not places:
            raise unknown("word", phrase, [w.text for w in have], f"{where} {target!r}")
        matches += places
    return sorted(set(matches), key=lambda w: w.start)


def words_of_target(source: str, target: str, named: Sequence[str], rule: Difference = "paper") -> list[Word]:
    """The words of the target that an edit is about: those that are named, else the nouns that differ.

    Raises UserError for a word that is not there.
    """
    return named_words(target, named) if named else differing_nouns(source, target, rule)


def words_of_both(source: str, target: str, named: Sequence[str], rule: Difference = "paper") -> tuple[list[Word], list[Word]]:
    """The words of the source and of the target that an edit is about: those that are named, else the nouns that differ.

    Raises UserError for a word that is in neither prompt.
    """
    if not named:
        return differing_nouns(target, source, rule), differing_nouns(source, target, rule)
    found: tuple[list[Word], list[Word]] = ([], [])
    for phrase in named:
        places = [_named_or_none(prompt, phrase) for prompt in (source, target)]
        if not any(places):
            have = ", ".join(dict.fromkeys(w.text for prompt in (source, target) for w in words(prompt) if w.stem))
            raise UserError(f"word {phrase!r} is in neither prompt; they have {have}")
        for words_of_prompt, more in zip(found, places, strict=True):
            words_of_prompt.extend(more)
    return found


def _named_or_none(prompt: str, phrase: str) -> list[Word]:
    """Where a phrase stands in a prompt; nothing if it does not."""
    try:
        return named_words(prompt, [phrase])
    except UserError:
        return []


def _places(phrase: str, have: Sequence[Word], rule: Difference) -> list[Word]:
    """The words of the phrase wherever they follow each other."""
    parts, keys = [key(w.text) for w in words(clean(phrase), rule)], [key(w.text) for w in have]
    starts = [i for i in range(len(have)) if parts and parts == keys[i : i + len(parts)]]
    return [w for i in starts for w in have[i : i + len(parts)]]


def token_indices(spans: Sequence[tuple[int, int]], chosen: Sequence[Word], pieces: Literal["all", "last"]) -> list[int]:
    """Positions of the tokens of those words; of a word that is split into several, all or only the last (release).

    Raises UserError for a word of which the tokenizer makes no token.
    """
    indices = []
    for word in chosen:
        stop = word.end - (len(word.text) - len(word.stem)) if word.stem else word.end
        tokens = [i for i, (start, end) in enumerate(spans) if start < end and start < stop and end > word.start]
        if not tokens:
            raise UserError(f"the tokenizer gives no token for the word {word.text!r}")
        indices += tokens if pieces == "all" else tokens[-1:]
    return sorted(set(indices))
