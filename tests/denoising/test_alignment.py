"""Which source tokens a target token's attention comes from, on prompts whose words are one token or one per letter."""

import pytest
import torch

from sdist.denoising.alignment import Tokens, counterparts, refine, replace, reweight, stack
from sdist.errors import UserError

from ..conftest import tiny_tokenizer

LENGTH = 24


def tokens(prompt: str) -> Tokens:
    given = tiny_tokenizer(LENGTH)(prompt, padding="max_length", max_length=LENGTH, return_offsets_mapping=True)
    return Tokens(prompt, given.input_ids, given.offset_mapping)


def origins(carry: torch.Tensor) -> list[list[int]]:
    """The source positions that each target position takes attention from."""
    return [carry[:, j].nonzero()[:, 0].tolist() for j in range(LENGTH)]


def test_words_are_found_between_spaces() -> None:
    assert tokens("a cat, a xyz").words() == [("a", [1]), ("cat,", [2, 3]), ("a", [4]), ("xyz", [5, 6, 7])]
    assert [tokens(prompt).count for prompt in ("", "a cat", "a cat, a xyz")] == [2, 4, 9]


def test_added_words_keep_their_own_attention() -> None:
    carry, keep = refine(tokens("a cat"), tokens("a cat wearing a hat"))
    # marks around a target of 5 tokens; its end is the source's end, the padding stays where it is
    assert origins(carry) == [[0], [1], [2], [], [], [], [3], *([j] for j in range(7, LENGTH))]
    assert keep.nonzero()[:, 0].tolist() == [3, 4, 5]


def test_words_left_out_move_what_follows() -> None:
    carry, keep = refine(tokens("a red cat in snow"), tokens("a cat in snow"))
    assert origins(carry)[:6] == [[0], [1], [3], [4], [5], [6]]
    assert not keep.any()


def test_an_unchanged_prompt_keeps_nothing_and_moves_nothing() -> None:
    for align in (refine, replace):
        carry, keep = align(tokens("a cat in snow"), tokens("a cat in snow"))
        assert torch.equal(carry, torch.eye(LENGTH))
        assert not keep.any()


@pytest.mark.parametrize(
    ("source", "target", "pairs"),
    [
        ("", "ab", []),
        ("ab", "ab", [(0, 0), (1, 1)]),
        ("abc", "xbz", [(1, 1)]),
        ("aab", "ab", [(0, 0), (2, 1)]),
        ("abac", "ac", [(0, 0), (3, 1)]),
        ("ab", "ba", [(1, 0)]),
    ],
)
def test_counterparts_are_a_longest_common_subsequence(source: str, target: str, pairs: list) -> None:
    assert counterparts([*map(ord, source)], [*map(ord, target)]) == pairs


def test_a_replaced_word_gets_the_attention_of_the_old_one() -> None:
    carry, keep = replace(tokens("a cat in snow"), tokens("a dog in snow"))
    assert torch.equal(carry, torch.eye(LENGTH))
    assert not keep.any()


def test_words_of_several_tokens_share_and_what_follows_keeps_its_order() -> None:
    carry, _ = replace(tokens("a cat in snow"), tokens("a xyz in snow"))  # 1 token becomes 3
    assert origins(carry)[:9] == [[0], [1], [2], [2], [2], [3], [4], [5], [6]]
    torch.testing.assert_close(carry[2, 2:5], torch.full((3,), 1 / 3))
    back, _ = replace(tokens("a xyz in snow"), tokens("a cat in snow"))
    assert origins(back)[:6] == [[0], [1], [2, 3, 4], [5], [6], [7]]
    assert origins(back)[-3:] == [[LENGTH - 1]] * 3  # past the source's end
    same, _ = replace(tokens("a xyz"), tokens("a uvw"))  # as many tokens go in pairs
    assert torch.equal(same, torch.eye(LENGTH))
    torch.testing.assert_close(carry.sum(0)[2:5].sum(), torch.tensor(1.0))  # what one token had, shared
    torch.testing.assert_close(back[2:5, 2].sum(), torch.tensor(3.0))  # what three had, together


def test_words_are_replaced_one_by_one_or_not_at_all() -> None:
    with pytest.raises(UserError, match="'a cat' has 2 words and 'a red cat' has 3; set mapping to refine"):
        replace(tokens("a cat"), tokens("a red cat"))


def test_reweighting_scales_what_a_token_gets_and_nothing_else() -> None:
    carry, keep = refine(tokens("a cat"), tokens("a cat wearing a hat"))
    scaled = reweight((carry, keep), [2, 5], 3.0)
    weights = torch.tensor([3.0 if j in (2, 5) else 1.0 for j in range(LENGTH)])
    assert torch.equal(scaled[0], carry * weights)
    assert torch.equal(scaled[1], keep * weights)


def test_images_are_stacked() -> None:
    pair = [refine(tokens("a cat"), tokens(target)) for target in ("a cat in snow", "a dog")]
    stacked = stack(pair, torch.device("cpu"))
    assert all(
        torch.equal(stacked.carry[i], carry) and torch.equal(stacked.keep[i], keep) for i, (carry, keep) in enumerate(pair)
    )
    assert stacked.keeps
    assert not stack([replace(tokens("a cat"), tokens("a dog"))], torch.device("cpu")).keeps
