"""Words that a model cannot know are said, and a prompt of which it knows none is refused."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import sdist
from sdist.config.build import load_settings
from sdist.editors.loading import load_method
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.models.base import Backbone
from sdist.models.catalogue import MODELS, TINYWORLD
from sdist.models.text import PromptEncoder
from sdist.models.vocabulary import LIST, check_words, report_words
from sdist.tinyworld.captions import vocabulary


def test_the_list_is_that_of_the_captions() -> None:
    for folder in (TINYWORLD, TINYWORLD / "flow"):
        assert (folder / LIST).read_text().split() == vocabulary()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "a.png"
    Image.new("RGB", (128, 128), "white").save(path)
    return path


@pytest.fixture(scope="module", params=["tinyworld", "tinyworld-flow", "a copy"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param in MODELS:
        return request.param
    return str(shutil.copytree(TINYWORLD, tmp_path_factory.mktemp("copy") / "world"))


@pytest.mark.parametrize(
    ("target", "unknown"),
    [
        ("a dragon in the snow", "dragon"),
        ("a red balloon and 2 cats in Paris", "2, cats, Paris"),
        ("a snowman's x-ray in the snow", "x, ray"),
        ("A Red Balloon in the snow.", ""),
        ("a sno\u0301wman", "snówman"),
    ],
)
def test_words_that_the_model_does_not_know_are_said_in_one_line(
    demo: Path, model: str, target: str, unknown: str, caplog: pytest.LogCaptureFixture
) -> None:
    sdist.edit(demo, "a field of snow", target, model=model, steps=1)
    lines = [record.getMessage() for record in caplog.records if "does not know" in record.getMessage()]
    place = Path(MODELS[model].sources[0] if model in MODELS else model)
    said = f"words that the model {model} does not know: {unknown}; those that it knows are in {place / LIST}"
    assert lines == ([said] if unknown else [])


@pytest.mark.parametrize("prompts", [("a field of snow", "xyzzy quux"), ("ein Haus", "a house"), ("", "🦊"), ("", "日本")])
def test_a_prompt_of_which_the_model_knows_nothing_is_refused(demo: Path, model: str, prompts: tuple[str, str]) -> None:
    with pytest.raises(UserError, match=r"knows no word of the prompt .*words\.txt$"):
        sdist.edit(demo, *prompts, model=model, steps=1)


def test_a_card_from_before_is_not_refused(demo: Path) -> None:
    method = load_method(load_settings("dds", model="tinyworld", steps=1))
    request = Request(demo, "", "quux")
    with pytest.raises(UserError, match="knows no word"):
        method.check(request)
    method.check(replace(request, plain=True))


class Words:
    """A tokenizer of whole words, with a token for all others."""

    unk_token_id, model_max_length = 0, 77

    def __init__(self, *known: str) -> None:
        self.known = known

    def __call__(self, prompt: str, **options: object) -> SimpleNamespace:
        ids, spans = zip(*self.read(prompt), strict=True)
        return SimpleNamespace(input_ids=list(ids), offset_mapping=list(spans))

    def read(self, prompt: str) -> list[tuple[int, tuple[int, int]]]:
        found, at = [(1, (0, 0))], 0
        for word in prompt.split():
            start = prompt.index(word, at)
            at = start + len(word)
            found.append((self.known.index(word) + 3 if word in self.known else 0, (start, at)))
        return [*found, (2, (0, 0))]


class Plain(PromptEncoder):
    embed = None  # type: ignore[assignment]


def with_tokenizer(*tokenizers: Words) -> Backbone:
    return SimpleNamespace(text=Plain([], tokenizers), name="own", source="")  # type: ignore[return-value]


@pytest.mark.usefixtures("unchecked")
def test_words_without_a_token_are_unknown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    model = with_tokenizer(Words("a", "cat"))
    check_words(model, "a cat")
    check_words(model, "")
    report_words(model, ["a cat", "a"])
    assert caplog.messages == []
    report_words(model, ["a dog", "a cat", "a dog in hats"])
    assert caplog.messages == [
        "words that the model own does not know: dog, in, hats; its tokenizer (Words) has no token for them"
    ]
    for tokenizer in (Words("a", "cat"), Words()):
        with pytest.raises(UserError, match="knows no word of the prompt 'dog'; its tokenizer"):
            check_words(with_tokenizer(tokenizer), "dog")
    check_words(with_tokenizer(Words("a", "cat"), Words("dog")), "dog")  # one of two encoders knows it
