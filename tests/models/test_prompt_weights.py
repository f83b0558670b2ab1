"""Weights in prompts: parsed, at their tokens, and as a line through the empty prompt's embeddings."""

import logging
from pathlib import Path

import pytest
import torch

from experiments.architectures import save_pipeline
from sdist.config.build import load_settings
from sdist.editors.loading import load_method
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.prompts import parse_weights, words


@pytest.fixture
def fresh(tiny_folder: Path) -> Backbone:
    return load_backbone(str(tiny_folder), "cpu")


def weighed(prompt: str) -> dict[str, float]:
    """The weight of each word."""
    text, weights = parse_weights(prompt)
    assert len(text) == len(weights) == len(prompt)
    return {word.text: weights[word.start] for word in words(prompt)}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat", {"a": 1, "cat": 1}),
        ("a (cat:1.3) in snow", {"a": 1, "cat": 1.3, "in": 1, "snow": 1}),
        ("(a red cat: 0.5 )", {"a": 0.5, "red": 0.5, "cat": 0.5}),
        ("((cat:1.2) and dog:1.5)", {"cat": 1.2 * 1.5, "and": 1.5, "dog": 1.5}),
        ("(((a:2) b:3) c:.5)", {"a": 3.0, "b": 1.5, "c": 0.5}),
        ("a (red (dark) hat:2)", {"a": 1, "red": 2, "dark": 2, "hat": 2}),
        ("(a (b (c (d))):2) e", {"a": 2, "b": 2, "c": 2, "d": 2, "e": 1}),
        ("((cat:1.3)) (dog:2", {"cat": 1.3, "dog": 1, "2": 1}),
    ],
)
def test_weights_are_parsed(prompt: str, expected: dict[str, float]) -> None:
    assert weighed(prompt) == pytest.approx(expected)


@pytest.mark.parametrize("prompt", ["a cat (red)", "a (cat:big)", "a cat:1.3", "(cat:1.3", "[cat:1.3]", "(cat:-1)", "(:)", ""])
def test_what_has_no_weight_is_text(prompt: str) -> None:
    assert parse_weights(prompt) == (prompt, [1.0] * len(prompt))


def test_tokens_stand_where_the_words_do(fresh: Backbone) -> None:
    fresh.text.configure(0, 1, prompt_weights=True)
    prompt = "a (red cat:1.3) in (snow:0.5)"
    assert fresh.text.token_ids(prompt) == fresh.text.token_ids("a red cat in snow")
    found = [prompt[start:end] for start, end in fresh.text.token_spans(prompt) if start < end]
    assert found == ["a", "red", "cat", "in", "snow"]


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_embeddings_move_along_the_line_from_the_empty_prompt(tmp_path: Path, family: str, blocks: int) -> None:
    model = load_backbone(str(save_pipeline(tmp_path, family)), "cpu")
    model.text.configure(0, blocks)
    plain, empty = model.embed(["a red cat"]), model.text.encode([""]).tokens
    model.text.configure(0, blocks, prompt_weights=True)
    at = next(i for i, (start, end) in enumerate(model.text.token_spans("a red cat")) if (start, end) == (6, 9))
    for weight in (0.0, 0.5, 1.5):
        text = model.embed([f"a red (cat:{weight})", "a red cat", ""])
        expected = plain.tokens.clone()
        expected[:, at] = empty[:, at] + weight * (expected[:, at] - empty[:, at])
        assert torch.allclose(text.tokens[:1], expected, atol=1e-5)
        assert torch.allclose(text.tokens[1:2], plain.tokens, atol=1e-5)  # its neighbour in the batch
        assert text.pooled is None or torch.allclose(text.pooled[0], text.pooled[1], atol=1e-5)


def test_a_weight_of_one_changes_no_bit(fresh: Backbone) -> None:
    before = fresh.embed(["a red cat"]).tokens
    fresh.text.configure(0, 1, prompt_weights=True)
    assert torch.equal(fresh.embed(["a (red cat:1)"]).tokens, before)


def test_an_edit_with_weights_follows_its_word_and_is_on_the_card(tiny_folder: Path, picture: Path) -> None:
    values = ["scale.cross_level=1", "scale.self_level=0", "steps=1", "filter=null", "prompt_weights=true"]
    method = load_method(load_settings("lusd", values, model=str(tiny_folder), device="cpu"))
    target = "a cat wearing a (red hat:1.5)"
    prepared = method.prepare(Request(picture, "a cat", target))
    assert prepared.words == ("hat",)
    plain = method.prepare(Request(picture, "a cat", "a cat wearing a red hat"))
    assert prepared.tokens == plain.tokens
    (heavy,), (light,) = method.edit([prepared]), method.edit([plain])
    assert heavy.card["settings"]["prompt_weights"] is True
    assert heavy.card["job"]["target"] == target
    assert heavy.image.tobytes() != light.image.tobytes()


@pytest.mark.parametrize("asked", [False, True])
def test_weights_that_are_text_are_pointed_out(
    asked: bool, tiny_folder: Path, picture: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings("dds", [f"prompt_weights={asked}".lower()], model=str(tiny_folder), device="cpu")
    with caplog.at_level(logging.WARNING, "sdist"):
        load_method(settings).prepare(Request(picture, "a cat", "a (dog:1.3)"))
    assert any("--prompt-weights reads them" in message for message in caplog.messages) is not asked


@pytest.mark.parametrize(
    ("target", "odd"), [("a (dog:1,3)", "(dog:1,3)"), ("a (dog:1.3 and snow", "(dog:1.3 and snow"), ("a (dog)", "")]
)
def test_what_only_looks_like_a_weight_is_pointed_out(
    target: str, odd: str, tiny_folder: Path, picture: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings("dds", ["prompt_weights=true"], model=str(tiny_folder), device="cpu")
    with caplog.at_level(logging.WARNING, "sdist"):
        load_method(settings).prepare(Request(picture, "a cat", target))
    assert [message.partition(" in ")[0] for message in caplog.messages if "is no weight" in message] == [repr(odd)] * bool(odd)


def test_a_model_that_cannot_weigh_says_so() -> None:
    settings = load_settings("dds", ["timesteps.t_min=400", "prompt_weights=true"], model="tinyworld-flow", device="cpu")
    with pytest.raises(UserError, match="--prompt-weights: only prompts that CLIP alone reads"):
        load_method(settings)


@pytest.mark.parametrize("asked", [False, True])
def test_another_weight_alone_is_an_edit(asked: bool, tiny_folder: Path, picture: Path) -> None:
    settings = load_settings("dds", [f"prompt_weights={asked}".lower()], model=str(tiny_folder), device="cpu")
    method = load_method(settings)
    method.prepare(Request(picture, "a cat", "a (cat:1.5)"))
    if asked:
        with pytest.raises(UserError, match="the same to this model"):
            method.prepare(Request(picture, "a cat", "a (cat:1)"))
