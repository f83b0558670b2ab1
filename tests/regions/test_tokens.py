"""Which tokens of an instruction are related and effective, by both rules."""

import re

import pytest

from sdist.regions.stop_words import STOP_WORDS
from sdist.regions.tokens import Tokens, by_piece, by_word

LIMIT = 12


def spans_of(instruction: str, pieces: int = 100) -> list[tuple[int, int]]:
    """One token per word and mark, longer words in pieces of so many letters; marks at both ends and padding stand for none."""
    found = [(0, 0)]
    for match in re.finditer(r"\w+|[^\w\s]", instruction):
        found += [(i, min(i + pieces, match.end())) for i in range(match.start(), match.end(), pieces)]
    return [*found, *[(0, 0)] * (LIMIT - len(found))]


@pytest.mark.parametrize(
    ("instruction", "related", "effective"),
    [
        ("Put a red hat on the dog.", (1, 3, 4, 7, 9), (1, 3, 4, 7, 8, 9)),
        ("make it snow", (1, 3, 4), (1, 3, 4)),
        ("MAKE IT SNOW!", (1, 3, 5), (1, 3, 4, 5)),
        ("on it", (), ()),
        ("", (), ()),
        (".", (), ()),
        ("the dog's hat", (2, 3, 4, 5, 6), (2, 3, 4, 5, 6)),
        ("it's green", (4, 5), (4, 5)),
    ],
)
def test_words_are_judged_whole(instruction: str, related: tuple, effective: tuple) -> None:
    assert by_word(instruction, spans_of(instruction)) == Tokens(related, effective)


def test_all_pieces_of_a_word_go_with_it() -> None:
    assert by_word("sunglasses on me", spans_of("sunglasses on me", 3)).related == (1, 2, 3, 4, 7)
    assert by_word("them", spans_of("them", 2)) == Tokens((), ())


def test_an_instruction_that_leaves_no_room_for_the_mark_at_its_end() -> None:
    spans = [(0, 0), *((2 * i, 2 * i + 1) for i in range(3))]
    assert by_word("x z w", spans) == Tokens((1, 2, 3), (1, 2, 3))


def test_pieces_are_judged_one_by_one_in_the_release() -> None:
    pieces = ["<|startoftext|>", "re", "m", "o", "v", "e", "the", "lantern", "!", "<|endoftext|>"]
    tags = ["NN", "NN", "NN", "NN", "NN", "VB", "DT", "NN", ".", "NN"]
    assert by_piece(pieces, lambda _: tags) == Tokens((4, 7, 9), (4, 5, 7, 8, 9))
    assert by_piece(["<|startoftext|>", "<|endoftext|>"], lambda _: ["NN", "VB"]) == Tokens((), (1,))


def test_the_stop_list_is_plain_lower_case_words() -> None:
    assert all(re.fullmatch("[a-z]+", word) for word in STOP_WORDS)
    assert {"a", "the", "it", "on", "with", "were", "her"} <= STOP_WORDS
    assert not {"put", "make", "add", "hat", "red", "sky", "remove", "replace"} & STOP_WORDS
