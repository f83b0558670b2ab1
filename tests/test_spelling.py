"""What reads alike is one text; what is no text is refused."""

import unicodedata
from pathlib import Path

import pytest

from sdist.editors.score_distillation import PromptSettings
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.prompts import differing, differing_nouns, named_words, words
from sdist.spelling import clean, escaped, key

FORMS = ["NFC", "NFD", "NFKC", "NFKD"]
INVISIBLE = {
    "zero-width space": "\u200b", "zero-width joiner": "\u200d", "zero-width non-joiner": "\u200c", "word joiner": "\u2060",
    "soft hyphen": "\u00ad", "byte order mark": "\ufeff", "right-to-left mark": "\u200f", "embedding": "\u202a",
    "variation selector": "\ufe0f", "grapheme joiner": "\u034f", "Mongolian separator": "\u180e", "invisible times": "\u2062",
    "tag": "\U000e0061",
}  # fmt: skip
SPACES = {"no-break": "\u00a0", "narrow no-break": "\u202f", "thin": "\u2009", "ideographic": "\u3000", "em": "\u2003"}


def every_word_a_noun(found: list[str]) -> list[str]:
    return ["DT" if word.lower() in ("a", "the", "in", "who") else "NN" for word in found]


@pytest.mark.parametrize("source", FORMS)
@pytest.mark.parametrize("target", FORMS)
@pytest.mark.parametrize("word", ["jalapeño", "naïve", "Ångström", "ﬁsh", "Việt", "한글", "हिन्दी", "\uff43\uff41\uff54"])
def test_the_form_of_a_word_makes_no_difference(source: str, target: str, word: str) -> None:
    a, b = (unicodedata.normalize(form, text) for form, text in ((source, f"a {word} on"), (target, f"a {word} on a hat")))
    assert [w.text for w in differing_nouns(a, b, tagger=every_word_a_noun)][-1:] == ["hat"]
    assert word not in [w.text for w in differing_nouns(a, b, tagger=every_word_a_noun)]
    assert len(words(b)) == 5
    assert [key(w.text) for w in named_words(b, [unicodedata.normalize(source, word)])] == [key(word)]


@pytest.mark.parametrize("name", INVISIBLE)
@pytest.mark.parametrize("place", ["inside", "before", "after"])
def test_what_is_not_seen_cuts_no_word_and_makes_no_difference(name: str, place: str) -> None:
    sign = INVISIBLE[name]
    odd = {"inside": f"bal{sign}loon", "before": f"{sign}balloon", "after": f"balloon{sign}"}[place]
    assert [word.text for word in words(f"a {odd} in the snow")] == ["a", "balloon", "in", "the", "snow"]
    assert differing("a balloon", f"a {odd}") == []
    (word,) = named_words(f"a {odd} in the snow", ["balloon"])
    assert clean(f"a {odd} in the snow"[word.start : word.end]) == "balloon"
    request = Request(Path("a.png"), f"{sign}a cat", f"a {odd}", words=(odd,))
    assert (request.source, request.target, request.words) == ("a cat", "a balloon", ("balloon",))


@pytest.mark.parametrize("name", SPACES)
def test_every_space_is_a_space(name: str) -> None:
    assert Request(Path("a.png"), "", f"a{SPACES[name]}cat").target == "a cat"
    with pytest.raises(UserError, match="identical"):
        Request(Path("a.png"), "a cat", f"a{SPACES[name]}cat")


def test_what_is_seen_stays() -> None:
    for text in ("a cat\tand\na dog", "½ ﬁ ™ ② 🦊👍🏽", "the dog\u2019s \u201cbed\u201d \u2013 soon…", "猫が寝ている", "été"):
        assert clean(text) == text


NO_TEXT = {
    "NUL": ("a\0b", "control character U\\+0000 at place 2"),
    "escape": ("\x1b[2J", "control character U\\+001B at place 1"),
    "C1": ("dog\x92s", "control character U\\+0092 at place 4"),
    "half a character": ("a \ud83e dog", "half a character at place 3"),
    "bytes that are not UTF-8": (b"caf\xe9".decode(errors="surrogateescape"), "half a character at place 4"),
}


@pytest.mark.parametrize("name", NO_TEXT)
def test_what_is_no_text_is_refused_wherever_it_stands(name: str) -> None:
    text, message = NO_TEXT[name]
    for part, given in {
        "source prompt": {"source": text, "target": "a cat"},
        "target prompt": {"source": "a cat", "target": text},
        "instruction": {"source": "a cat", "target": "a dog", "instruction": text},
        "word of --words": {"source": "a cat", "target": "a dog", "words": (text,)},
    }.items():
        with pytest.raises(UserError, match=f"^the {part} is not valid text: [^\n]*{message}"):
            Request(Path("a.png"), **given)
    for part in ("null", "negative"):
        with pytest.raises(UserError, match=f"^the {part} prompt is not valid text"):
            PromptSettings(**{part: text})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("given", [None, 7, b"a cat", ["a cat"]])
def test_a_prompt_of_another_type_is_refused_by_name(given: object) -> None:
    with pytest.raises(UserError, match="target must be text, got "):
        Request(Path("a.png"), "", given)


def test_a_card_from_before_keeps_its_prompts_as_they_are() -> None:
    assert Request(Path("a.png"), "", "a\u200b cat", plain=True).target == "a\u200b cat"


def test_half_characters_are_written_out() -> None:
    assert [escaped(text) for text in ("a\udcff", "é\\ud800", "")] == ["a\\udcff", "é\\ud800", ""]
