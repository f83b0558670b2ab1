import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdist.errors import UserError
from sdist.models.base import Backbone
from sdist.prompts import differing, differing_nouns, named_words, token_indices, words
from sdist.taggers import default_tagger, nltk_tagger, pattern_tags

with (Path(__file__).parent / "prompt_pairs.csv").open(encoding="utf-8", newline="") as file:
    COMMITTED = list(csv.DictReader(file))  # what differs, and the nouns that the paper's rule finds with nltk's tags
needs_nltk = pytest.mark.skipif(nltk_tagger() is None, reason="nltk's tagger data is not installed (NLTK_DATA)")

PAIRS = [
    ("a cat", "a cat wearing a party hat", ["party", "hat"]),
    ("a red house in a meadow", "a red house and a blue boat in a meadow", ["boat"]),
    ("a city", "a city in winter", ["winter"]),
    ("a cup of coffee", "a cup of matcha", ["matcha"]),
    ("a roof", "a bird on a roof", ["bird"]),
    ("a red car on a beach", "a blue car on a beach", ["car"]),  # extended up to the noun
    ("", "a snowman at night", ["snowman", "night"]),
    ("a girl sitting in front of a mirror", "a girl wearing glasses sitting in front of a mirror", ["glasses", "front"]),
    ("A Cat, sleeping.", "a cat sleeping", []),
]


def texts(found: list) -> list[str]:
    return [word.text for word in found]


@pytest.mark.parametrize(("source", "target", "expected"), PAIRS)
def test_nouns_of_the_difference(source: str, target: str, expected: list[str]) -> None:
    nouns = texts(differing_nouns(source, target))
    if expected == ["glasses", "front"]:  # the tagger decides whether sitting ends the phrase; glasses is in any case
        assert nouns[0] == "glasses"
    else:
        assert nouns == expected


def test_the_committed_pairs_cover_the_language() -> None:
    assert len({(row["source"], row["target"]) for row in COMMITTED}) == len(COMMITTED) >= 60
    assert len({row["kind"] for row in COMMITTED}) >= 15


@pytest.mark.parametrize("row", COMMITTED, ids=lambda row: row["target"])
def test_what_differs_in_the_committed_pairs(row: dict) -> None:
    found = texts(words(row["target"]))
    assert " ".join(found[i] for i in differing(row["source"], row["target"])) == row["difference"]


@needs_nltk
@pytest.mark.parametrize("row", COMMITTED, ids=lambda row: row["target"])
def test_nouns_with_nltk_are_the_papers(row: dict) -> None:
    nouns = texts(differing_nouns(row["source"], row["target"], tagger=nltk_tagger()))
    assert " ".join(nouns) == row["nouns"]


@pytest.mark.parametrize("count", [400, 5000])
def test_long_prompts_are_read_in_time(count: int) -> None:
    source = " ".join(["cat", "dog", "red"] * count)
    indices = differing(source, source + " hat")
    assert indices == [3 * count]


def test_paper_and_release_differ_where_words_move() -> None:
    source, target = "a cat on a mat", "a big cat on a rug"
    target_words = texts(words(target))
    assert [target_words[i] for i in differing(source, target, "paper")] == ["big", "cat", "on", "a", "rug"]
    source, target = "a b c d", "a x c y"
    assert differing(source, target, "paper") == [1, 2, 3]
    assert differing(source, target, "released") == [1, 3]


@pytest.mark.parametrize(
    ("source", "target", "paper", "released"),
    [
        ("tv", "TV with a film on", "with a film on", "TV with a film on"),  # case
        ("a red bus", "a red bus and a green bus", "bus and a green", "and a green"),  # a repeated word
        ("a bus", "a bus and a bus", "a bus and", "and"),
        ("bus", "a bus", "a", "a"),
    ],
)
def test_the_release_minds_case_and_compares_with_the_whole_source(source: str, target: str, paper: str, released: str) -> None:
    found = texts(words(target))
    assert [" ".join(found[i] for i in differing(source, target, rule)) for rule in ("paper", "released")] == [paper, released]


def test_only_three_words_are_articles_to_the_release() -> None:
    def tagger(found: list[str]) -> list[str]:
        return [{"another": "DT", "a": "DT", "beside": "IN"}.get(word, "NN") for word in found]

    def nouns(target: str, rule: str) -> list[str]:
        return texts(differing_nouns("man", target, rule, tagger))

    assert nouns("man beside another man", "paper") == ["man"]
    assert nouns("man beside another man", "released") == ["man"]
    assert [word.start for word in differing_nouns("man", "man beside another man", "released", tagger)] == [19]
    assert nouns("man beside a man", "released") == []


PIECES = {"s", "t", "n", "doesn", "does", "ll", "d", "re", "em", "'s", "n't", "'n'"}


def nn(found: list[str]) -> list[str]:
    """Every word but a few is a noun, those that hang on to others too."""
    return ["DT" if word.lower() in ("a", "an", "the", "in", "who") else "NN" for word in found]


@pytest.mark.parametrize("apostrophe", ["'", "\u2019", "\u02bc", "\uff07", "`", "\u00b4"])
@pytest.mark.parametrize(
    ("source", "target", "nouns"),
    [
        ("a dog in the park", "a dog's bed in the park", ["dog's", "bed"]),
        ("a dog", "a dog 's bed", ["bed"]),
        ("a shop", "the children's shop", ["children's"]),
        ("a girl", "a girl who doesn't smile", ["doesn't", "smile"]),
        ("a girl", "a girl who does n't smile", ["smile"]),
        ("a band", "a rock 'n' roll band", ["rock", "roll"]),
        ("a band", "a rock n' roll band", ["rock", "roll"]),
        ("a bed", "the dogs' bed", ["dogs"]),
        ("a red car", "a 'red' car", []),
        ("a man", "an o'clock man", ["o'clock"]),
    ],
)
def test_an_apostrophe_cuts_no_word(apostrophe: str, source: str, target: str, nouns: list[str]) -> None:
    def tagger(found: list[str]) -> list[str]:
        return ["VBZ" if word == "does" and "does n" in target else tag for word, tag in zip(found, nn(found), strict=True)]

    found = differing_nouns(source, target.replace("'", apostrophe), tagger=tagger)
    assert [word.text.replace(apostrophe, "'") for word in found] == nouns
    assert not PIECES & {word.text.lower() for word in found}


@pytest.mark.parametrize("hyphen", ["-", "\u2010", "\u2011"])
@pytest.mark.parametrize(
    "word", ["x-ray", "f-16", "close-up", "t-shirt", "mother-in-law", "covid-19", "jack-o'-lantern", "at&t", "r&b"]
)
def test_a_hyphen_cuts_no_word(hyphen: str, word: str) -> None:
    """Also where the tagger does not know the whole."""
    target = f"a cat with a {word} in the snow".replace("-", hyphen)
    (chosen,) = differing_nouns("a cat with a hat in the snow", target, tagger=pattern_tags)
    assert chosen.text.replace(hyphen, "-") == word
    assert differing(f"a {word}", f"a {word.upper()}".replace("-", hyphen)) == []
    (named,) = named_words(target, [word])
    assert named == chosen


def test_hyphenated_adjectives_are_no_nouns_and_dashes_are_no_hyphens() -> None:
    assert texts(differing_nouns("a painter", "a well-known painter", tagger=pattern_tags)) == ["painter"]
    assert texts(words("a cat - a dog -- a fox--a hen")) == ["a", "cat", "a", "dog", "a", "fox", "a", "hen"]


def test_parts_of_a_word_can_be_named_but_not_what_hangs_on_to_it() -> None:
    target = "a red-brick house by the dog's bed"
    assert texts(named_words(target, ["brick", "red brick", "Dog"])) == ["red", "brick", "dog"]
    assert texts(named_words(target, ["RED-BRICK", "dog\u2019s bed"])) == ["red-brick", "dog's", "bed"]
    with pytest.raises(UserError, match="unknown word 's'"):
        named_words(target, ["s"])


def test_the_mask_follows_the_word_without_its_ending(tiny: Backbone) -> None:
    prompt = "a cat's hat"
    (chosen,) = named_words(prompt, ["cat's"])
    spans = tiny.text.token_spans(prompt)
    for pieces in ("all", "last"):
        assert [prompt[slice(*spans[i])] for i in token_indices(spans, [chosen], pieces)] == ["cat"]


def test_the_released_rule_keeps_its_words() -> None:
    target = "a dog's x-ray"
    assert texts(words(target, "released")) == ["a", "dog", "s", "x", "ray"]
    assert differing("a dog", target, "released") == [2, 3, 4]
    assert texts(differing_nouns("a dog", target, "released", nn)) == ["s", "x", "ray"]


word_lists = st.lists(st.sampled_from(["a", "b", "c", "cat"]), max_size=8)


@given(word_lists, word_lists)
def test_what_is_left_has_no_common_prefix_or_suffix(a: list[str], b: list[str]) -> None:
    indices = differing(" ".join(a), " ".join(b))
    assert indices == list(range(indices[0], indices[-1] + 1)) if indices else True
    if indices:
        before, after = b[: indices[0]], b[indices[-1] + 1 :]
        assert a[: len(before)] == before
        assert a[len(a) - len(after) :] == after
        assert len(before) + len(after) <= len(a)


@given(word_lists)
def test_equal_prompts_do_not_differ(a: list[str]) -> None:
    assert differing(" ".join(a), " ".join(a)) == differing(" ".join(a), " ".join(a), "released") == []


@given(word_lists, word_lists)
def test_everything_differs_from_nothing(a: list[str], b: list[str]) -> None:
    assert differing("", " ".join(b)) == list(range(len(b)))
    assert set(differing(" ".join(a), " ".join(b), "released")) <= set(range(len(b)))


def test_the_users_words_win_and_must_be_there() -> None:
    target = "a cat wearing a Party hat, and a cat"
    assert texts(named_words(target, ["party hat"])) == ["Party", "hat"]
    assert [w.start for w in named_words(target, ["cat"])] == [2, 33]
    with pytest.raises(UserError, match=r"unknown word 'hats' .* did you mean 'hat'"):
        named_words(target, ["hats"])
    with pytest.raises(UserError, match="unknown word"):
        named_words(target, ["!"])


def test_tokens_come_from_the_tokenizers_own_offsets(tiny: Backbone) -> None:
    prompt = "a Cat wearing a snowflake, in the hat"
    spans = tiny.text.token_spans(prompt)
    ids = tiny.text.token_ids(prompt)
    chosen = named_words(prompt, ["snowflake", "hat"])
    pieces = token_indices(spans, chosen, "all")
    text = "".join(tiny.text.tokenizers[0].convert_ids_to_tokens([ids[i] for i in pieces])).replace("</w>", " ")
    assert text == "snowflake hat "
    assert len(pieces) > 2  # snowflake is split
    last = token_indices(spans, chosen, "last")
    assert len(last) == 2
    assert set(last) <= set(pieces)


def test_a_prompt_beyond_the_limit_is_an_error_not_a_cut(tiny: Backbone) -> None:
    assert len(tiny.text.token_ids("cat " * 22)) == 24
    with pytest.raises(UserError, match="prompt has 25 tokens, this model reads 24"):
        tiny.text.token_ids("cat " * 23)


def test_taggers_know_plain_nouns() -> None:
    tags = default_tagger()[1](["a", "cat", "wearing", "a", "red", "hat"])
    assert [tags[i] for i in (0, 1, 3, 5)] == ["DT", "NN", "DT", "NN"]


def test_odd_text_gives_one_tag_a_word() -> None:
    for prompt in ("", "🙂", "it's don't", "été über 猫", "1 2 3", "_ __"):
        found = texts(words(prompt))
        assert len(default_tagger()[1](found)) == len(found)
        differing_nouns("", prompt)
