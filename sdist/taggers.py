"""Parts of speech, by nltk's tagger where its data is there and whole, else by TextBlob's, which needs none."""

import logging
from collections.abc import Callable, Sequence
from functools import cache

log = logging.getLogger("sdist")

Tagger = Callable[[Sequence[str]], list[str]]  # words -> part-of-speech tags (Penn Treebank)
KNOWN = {"the": "DT", "cat": "NN"}  # what a tagger whose data is whole says


@cache
def default_tagger() -> tuple[str, Tagger]:
    """("nltk", tagger) if its data can be used, else ("textblob", TextBlob's PatternTagger, which downloads nothing)."""
    perceptron = nltk_tagger()
    return ("textblob", pattern_tags) if perceptron is None else ("nltk", perceptron)


def nltk_tagger() -> Tagger | None:
    """nltk's averaged perceptron, which the paper uses; None if its data is not installed, with a warning if it is damaged."""
    tagger, damage = _load()
    if damage:
        log.warning("nltk's tagger data cannot be used (%s): nouns are found by textblob; %s", damage, DOWNLOAD)
    return tagger


def nltk_damage() -> str:
    """What is wrong with the data of nltk's tagger; empty if nothing is, or if it is not installed."""
    return _load()[1]


DOWNLOAD = "python -m nltk.downloader averaged_perceptron_tagger_eng fetches it"


@cache
def _load() -> tuple[Tagger | None, str]:
    from nltk.tag import PerceptronTagger

    try:
        perceptron = PerceptronTagger()
        tags = dict(perceptron.tag(list(KNOWN)))
    except LookupError as error:
        return None, "" if "Resource" in str(error) and "not found" in str(error) else _line(error)
    except Exception as error:  # whatever nltk, json or zipfile make of the files
        return None, _line(error)
    if tags != KNOWN:
        return None, f"it takes {' '.join(KNOWN)!r} for {' '.join(map(str, tags.values()))}"
    return lambda ws: [tag for _, tag in perceptron.tag(list(ws))], ""


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def pattern_tags(ws: Sequence[str]) -> list[str]:
    """PatternTagger splits some words (it's -> it + 's); a word gets the tag of its first piece."""
    from textblob.taggers import PatternTagger

    tagged = PatternTagger().tag(" ".join(ws), tokenize=False)
    if len(tagged) != len(ws):
        return [(PatternTagger().tag(word, tokenize=False) or [(word, "NN")])[0][1] for word in ws]
    return [tag for _, tag in tagged]
